import numpy as np
import pytest

from limber_interp.errors import InputError, check_at_least_one


def test_a_number_of_things():
    check_at_least_one(batch_size=1, n_samples=None, block_size=np.int64(3))
    for count in (0, -1, np.int64(-2)):
        with pytest.raises(InputError, match=f"^batch_size {count}: expected at least 1$"):
            check_at_least_one(n_samples=2, batch_size=count)
    for count in (2.5, "many", np.nan):
        with pytest.raises(InputError, match=f"^batch_size {count!r}: expected a whole number, at least 1$"):
            check_at_least_one(batch_size=count)
