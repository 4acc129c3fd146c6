import pytest

from limber_interp.errors import InputError
from limber_interp.ranks import Ranks


@pytest.fixture
def environment(monkeypatch):
    """Sets the launcher's variables, and none of those that an earlier test has left."""

    def put(**values: str) -> None:
        for name in ("RANK", "WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        for name, value in values.items():
            monkeypatch.setenv(name, value)

    return put


def test_a_process_without_a_launcher_is_alone(environment) -> None:
    environment()
    assert Ranks.of_environment() == Ranks(0, 1)


def test_as_the_launcher_says(environment) -> None:
    environment(RANK="2", WORLD_SIZE="3")
    assert Ranks.of_environment() == Ranks(2, 3)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"WORLD_SIZE": "2"}, "environment: found WORLD_SIZE=2, and no RANK; start the processes by torchrun"),
        ({"RANK": "1"}, "environment: found RANK=1, and no WORLD_SIZE; start"),
        ({"RANK": "first", "WORLD_SIZE": "2"}, "found RANK=first, WORLD_SIZE=2, expected two whole numbers; start"),
        ({"RANK": "0", "WORLD_SIZE": ""}, "found RANK=0, WORLD_SIZE=, expected two whole numbers"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "found RANK=2, WORLD_SIZE=2, expected a RANK from 0 to WORLD_SIZE - 1"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "expected a RANK from 0"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "expected a RANK from 0"),
    ],
)
def test_half_a_launcher_is_refused(environment, values: dict[str, str], line: str) -> None:
    """With WORLD_SIZE alone every process took itself for the first, and wrote what the others wrote."""
    environment(**values)
    with pytest.raises(InputError, match=line) as caught:
        Ranks.of_environment()
    assert "\n" not in str(caught.value)
