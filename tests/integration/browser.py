"""A browser as plain as can be: follows redirects and links, keeps cookies, sends forms as they stand on the page."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html import unescape
from typing import Final, Self
from urllib.parse import urljoin

import httpx

PATIENCE_S = 60.0


@dataclass
class Form:
    """One form, with what stands in its fields."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)


_TAG: Final = re.compile(r"<(form|input|a|script)\b([^>]*)>([^<]*)", re.IGNORECASE)
_ATTRIBUTE: Final = re.compile(r"""([a-z-]+)=(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)


class _Seen:
    """What one page lets a person do."""

    def __init__(self, text: str) -> None:
        self.forms: list[Form] = []
        self.links: dict[str, str] = {}
        self.scripts = 0
        for tag, attributes, words in _TAG.findall(text):
            found = {name.lower(): unescape(one or other) for name, one, other in _ATTRIBUTE.findall(attributes)}
            self.scripts += tag.lower() == "script" or any(name.startswith("on") for name in found)
            if tag == "form":
                self.forms.append(Form(found.get("method", "get").upper(), found["action"]))
            elif tag == "input" and found.get("type") != "checkbox":
                self.forms[-1].fields[found["name"]] = found.get("value", "")
            elif tag == "a":
                self.links[unescape(words).strip()] = found["href"]


class Browser:
    """One person's browser. Where it is, is `page`."""

    def __init__(self) -> None:
        self.http = httpx.Client(trust_env=False, timeout=PATIENCE_S, follow_redirects=True)
        self.page = httpx.Response(200)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    @property
    def where(self) -> str:
        return str(self.page.url).partition("?")[0]

    @property
    def forms(self) -> list[Form]:
        return self._read().forms

    @property
    def scripts(self) -> int:
        return self._read().scripts

    def open(self, url: str) -> httpx.Response:
        self.page = self.http.get(url)
        return self.page

    def click(self, words: str) -> httpx.Response:
        return self.open(urljoin(str(self.page.url), self._read().links[words]))

    def send(self, **typed: str) -> httpx.Response:
        """Fill the page's only form in, and send it."""
        (form,) = self.forms
        fields = {**form.fields, **typed}
        place = urljoin(str(self.page.url), form.action)
        if form.method == "GET":
            self.page = self.http.get(place, params=fields)
        else:
            origin = httpx.URL(str(self.page.url)).copy_with(path="/", query=None)
            self.page = self.http.post(place, data=fields, headers={"Origin": str(origin).rstrip("/")})
        return self.page

    def _read(self) -> _Seen:
        return _Seen(self.page.text)
