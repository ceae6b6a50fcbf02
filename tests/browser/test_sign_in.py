"""Signing in, as far as the provider: a small OpenID Connect provider on this machine, and a real browser."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import pytest
from playwright.sync_api import Page, expect

from tests.app import seed
from tests.browser.serving import free_port, served


class Provider(BaseHTTPRequestHandler):
    """Its discovery document, and a page where others would ask for a password."""

    def do_GET(self) -> None:
        root = f"http://{self.headers['Host']}"
        discovery = {
            "issuer": root,
            "authorization_endpoint": f"{root}/authorize",
            "token_endpoint": f"{root}/token",
            "jwks_uri": f"{root}/jwks",
            "code_challenge_methods_supported": ["S256"],
        }
        is_discovery = self.path == "/.well-known/openid-configuration"
        self.send_response(200)
        self.send_header("Content-Type", "application/json" if is_discovery else "text/html")
        self.end_headers()
        self.wfile.write(json.dumps(discovery).encode() if is_discovery else b"<h1>Who are you?</h1>")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Provider) as server:
        threading.Thread(target=server.serve_forever).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture
def guarded(tmp_path: Path, provider: str) -> Iterator[str]:
    """The app on a finished run, with a secrets.toml that asks for signing in."""
    port, secrets, path = free_port(), tmp_path / "secrets.toml", tmp_path / "results.duckdb"
    seed.planned(path, prompts=3)
    seed.finished(path, prompts=3)
    settings = {
        "redirect_uri": f"http://127.0.0.1:{port}/oauth2callback",
        "cookie_secret": "a secret of the tests, and of nobody else",
        "client_id": "x-det-lab",
        "client_secret": "s",
        "server_metadata_url": f"{provider}/.well-known/openid-configuration",
    }
    secrets.write_text("[auth]\n" + "".join(f"{name} = {json.dumps(value)}\n" for name, value in settings.items()))
    with served(path, options={"server.port": port, "secrets.files": str(secrets)}) as address:
        yield address


def test_the_visitor_is_sent_to_the_provider(page: Page, guarded: str, provider: str) -> None:
    page.goto(f"{guarded}/sweep?row=x-ft-de&eval=ar")
    expect(page.get_by_text("Sign in to see the results.")).to_be_visible()
    for test_id in ("stSidebarNav", "stVegaLiteChart", "stSelectbox", "stToggle"):
        expect(page.get_by_test_id(test_id)).to_have_count(0)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
    sent = urlparse(page.url)
    asked = {name: value for name, (value,) in parse_qs(sent.query).items()}
    assert f"{sent.scheme}://{sent.netloc}{sent.path}" == f"{provider}/authorize"
    assert asked["client_id"] == "x-det-lab"
    assert asked["redirect_uri"] == f"{guarded}/oauth2callback"
    assert asked["response_type"] == "code"
    assert asked["scope"] == "openid email profile"
    assert asked["code_challenge_method"] == "S256"
    assert asked["state"] and asked["nonce"]
    assert "s" not in asked.values()  # the client's secret
    page.goto(f"{guarded}/oauth2callback?state=made-up&code=made-up")  # who was not sent by us
    expect(page.get_by_role("button", name="Sign in")).to_be_visible()
