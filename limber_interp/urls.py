"""Opening http(s) URLs: no other scheme, redirects counted, proxies as the environment names them."""

import re
import string
from collections.abc import Mapping
from http.client import HTTPResponse
from types import MappingProxyType
from typing import cast
from urllib import request
from urllib.parse import quote

MAX_REDIRECTS = 5
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class _CountedRedirects(request.HTTPRedirectHandler):
    max_redirections = MAX_REDIRECTS


def open_url(url: str, timeout: float, headers: Mapping[str, str] = NO_HEADERS) -> HTTPResponse:
    """Ask for a URL; the answer's body is still to be read, and the answer to be closed.

    Args:
        url: as a browser shows it, or percent-encoded: blanks and letters beyond ASCII may stand in it.
        timeout: seconds that the server may be silent, here and in each reading of the body.

    Raises:
        HTTPError: an answer that is an error; to be closed too.
        OSError, HTTPException, ValueError: no connection, silence; no HTTP; a malformed URL.
    """
    # Assembled by hand: urlopen() would also follow redirects to ftp:
    opener = request.OpenerDirector()
    for handler in (
        request.ProxyHandler(),
        request.HTTPHandler(),
        request.HTTPSHandler(),
        request.HTTPDefaultErrorHandler(),
        request.HTTPErrorProcessor(),
        _CountedRedirects(),
        request.UnknownHandler(),
    ):
        opener.add_handler(handler)
    asked = request.Request(encoded(url), headers={"User-Agent": "limber_interp", **headers})
    return cast(HTTPResponse, opener.open(asked, timeout=timeout))


def encoded(url: str) -> str:
    """A URL in ASCII: what is percent-encoded already stays as it is.

    Raises:
        ValueError: the host is no name.
    """
    parts = re.fullmatch(r"(https?://)([^/?#]*@)?([^/?#@]*)(.*)", url, re.DOTALL | re.IGNORECASE)
    if parts is None:
        return url
    scheme, user, host, rest = (part or "" for part in parts.groups())
    if not host.isascii():
        name, colon, port = host.partition(":")
        host = name.encode("idna").decode("ascii") + colon + port
    user, rest = (re.sub(r"%(?![0-9A-Fa-f]{2})", "%25", quote(part, safe=string.punctuation)) for part in (user, rest))
    return scheme + user + host + rest
