"""The live page in every state: no model, a bare base, adapters, a server that answers and one that does not."""

import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app import labels
from app.live.job_queue import MAX_CHARACTERS, Job, State
from engine.config import EMBEDDED_MODEL, TINY_MODEL
from engine.model import registry
from engine.vocabulary import Language
from tests import live_folder
from tests.app import seed
from tests.app.conftest import MAIN
from tests.app.reading import page_html
from tests.unit import vllm_server
from tests.unit.vllm_server import MISBEHAVING, VllmServer

Open = Callable[..., AppTest]
NASTY = (
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "[a link](javascript:alert(1)) **bold** `code` $x^2$ :red[red]",
    "😀😀😀",
    "\N{RIGHT-TO-LEFT OVERRIDE}evil",
    "{sentence} {0} %s",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("adapters")
    live_folder.fill(place)
    return place


@pytest.fixture
def open_live(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Open:
    """Opens the page without results, on an adapters folder, with these words in its address."""
    monkeypatch.delenv("VLLM_URL", raising=False)
    monkeypatch.delenv("PERSPECTIVE_API_KEY", raising=False)
    st.cache_data.clear()

    def opened(adapters: Path, db: Path = tmp_path / "none.duckdb", **address: str) -> AppTest:
        monkeypatch.setattr("sys.argv", ["main.py", "--db", str(db), "--adapters", str(adapters)])
        app = AppTest.from_file(str(MAIN), default_timeout=60)
        app.switch_page("app_pages/live.py")
        app.query_params.update(address)
        return app.run()

    return opened


@pytest.fixture
def there() -> Iterator[VllmServer]:
    with vllm_server.serving() as server:
        yield server


def run(app: AppTest) -> Job:
    """Presses Run, and waits until all is written and scored; the page is drawn anew."""
    button(app, "Run").click().run()
    assert not app.exception
    job: Job = app.session_state["jobs"][-1]
    assert job.settled.wait(120)
    app.run()
    return job


def button(app: AppTest, label: str, number: int = 0):  # noqa: ANN201  Streamlit does not export its type
    return [found for found in app.button if found.label == label][number]


def names() -> list[str]:
    return [variant.variant_id for variant in live_folder.variants()]


def test_without_a_model_the_page_says_how_to_get_one(
    open_live: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    app = open_live(tmp_path)
    assert not app.exception
    assert "No model is available" in page_html(app)
    assert "pip install" in page_html(app) and "VLLM_URL" in page_html(app)
    assert not app.text_area


def test_the_embedded_base_alone_can_be_prompted(open_live: Open, tmp_path: Path) -> None:
    app = open_live(tmp_path)
    assert not app.exception
    assert app.selectbox(key="base").options == [EMBEDDED_MODEL]
    assert app.multiselect(key="with").options == []
    assert [button(app, "Run").disabled, button(app, "Stop").disabled] == [False, True]
    button(app, "Run").click().run()
    assert "Type a prompt first" in page_html(app)
    assert app.session_state["jobs"] == []


def test_an_order_is_written_scored_and_shown(open_live: Open, folder: Path) -> None:
    app = open_live(folder, base=TINY_MODEL, tokens="8")
    app.text_area(key="prompt").set_value("Der Bus kommt schon wieder zu spät.").run()
    assert app.selectbox(key="prompt_lang").options[0] == "Detected: German"
    assert set(app.multiselect(key="with").options) == {"German (X-FT)", "Hindi (X-FT)", "All languages (M-FT)"} | {
        live_folder.FOREIGN
    }
    app.multiselect(key="with").set_value([names()[1], names()[0]]).run()
    job = run(app)
    assert job.request.lang is Language.DE
    assert [column.state for column in job.columns] == [State.DONE] * 3
    html = page_html(app)
    for column in job.columns:
        assert column.score is not None
        value, reason = column.score.value, column.score.reason
        assert (
            f"not scored: {reason}" if value is None else f"toxicity {labels.format_number(100 * value, 1)}"
        ) in html
    assert "German (X-FT)" in html and f"{TINY_MODEL} (ZS)" in html
    assert [button(app, "Run").disabled, button(app, "Stop").disabled] == [False, True]


def test_the_address_holds_the_whole_order_and_the_same_text(open_live: Open, folder: Path) -> None:
    app = open_live(folder, base=TINY_MODEL, tokens="8", prompt="Sopa", prompt_lang="es", seed="7", top_p="0.5")
    app.multiselect(key="with").set_value([names()[2]]).run()
    app.number_input(key="temperature").set_value(1.5).run()
    first = run(app)
    again = open_live(folder, **dict(app.query_params))
    assert again.text_area(key="prompt").value == "Sopa"
    second = run(again)
    assert second.request == first.request and second.request.seed == 7 and second.request.sampling.temperature == 1.5
    assert [column.text for column in second.columns] == [column.text for column in first.columns]


def test_nonsense_in_the_address_is_left_out(open_live: Open, folder: Path) -> None:
    address = {"seed": "x", "temperature": "99", "top_p": "nan", "tokens": "1e9", "prompt_lang": "xx", "base": "../.."}
    app = open_live(folder, **address, **{"with": "../../etc,<b>gone</b>"})
    assert not app.exception
    assert app.number_input(key="seed").value == 42 and app.number_input(key="temperature").value == 0.7
    assert app.number_input(key="top_p").value == 0.9 and app.number_input(key="tokens").value == 50
    assert app.multiselect(key="with").value == []
    assert "../../etc, &lt;b&gt;gone&lt;/b&gt;" in page_html(app)


def test_a_prompt_may_have_so_many_characters(open_live: Open, folder: Path) -> None:
    app = open_live(folder, base=TINY_MODEL, prompt="x" * 10_000)
    button(app, "Run").click().run()
    assert f"10,000 characters; the maximum is {MAX_CHARACTERS:,}" in page_html(app)
    assert app.session_state["jobs"] == []


@pytest.mark.parametrize("prompt", NASTY)
def test_what_is_typed_is_text(open_live: Open, folder: Path, prompt: str) -> None:
    app = open_live(folder, base=TINY_MODEL, tokens="2", prompt=prompt)
    job = run(app)
    assert job.request.prompt == prompt
    shown = page_html(app)
    assert "<script" not in shown and "<img" not in shown and "<a " not in shown
    assert not any(prompt in str(element.value) for element in app.markdown)
    if prompt.startswith("\N{RIGHT-TO-LEFT OVERRIDE}"):
        before = shown[: shown.index(prompt)]
        assert before.endswith('dir="ltr" aria-hidden="true">')  # an element with a direction isolates


def test_earlier_prompts_can_be_opened_again(open_live: Open, folder: Path) -> None:
    app = open_live(folder, base=TINY_MODEL, tokens="2", prompt="eins", prompt_lang="de")
    first = run(app)
    app.text_area(key="prompt").set_value("two").run()
    app.number_input(key="seed").set_value(5).run()
    app.selectbox(key="prompt_lang").set_value("en").run()
    second = run(app)
    assert app.session_state["job"] == second.job_id
    assert [(found.label, found.disabled) for found in app.button if found.label == "Open"] == [
        ("Open", True),
        ("Open", False),
    ]
    button(app, "Open", 1).click().run()
    assert not app.exception
    assert app.session_state["job"] == first.job_id
    assert app.text_area(key="prompt").value == "eins" and app.number_input(key="seed").value == 42
    assert app.query_params["prompt"] == "eins" and app.query_params["seed"] == "42"


def test_a_server_takes_the_models_place(open_live: Open, there: VllmServer, folder: Path, monkeypatch) -> None:  # noqa: ANN001
    monkeypatch.setenv("VLLM_URL", there.url)
    app = open_live(folder, prompt="Guten Tag")
    assert not app.exception
    assert f"vLLM server {there.url}" in page_html(app)
    assert app.selectbox(key="base").options == ["base"]
    assert app.multiselect(key="with").options == ["german", "hindi", "russian", *MISBEHAVING]
    app.multiselect(key="with").set_value(["german", "cut"]).run()
    run(app)
    shown = page_html(app)
    assert shown.count("toxicity ") + shown.count("not scored: ") == 2 and "interrupted" in shown and "failed" in shown


def test_a_server_that_is_gone_is_said_and_nothing_is_lost(
    open_live: Open, there: VllmServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_URL", there.url)
    app = open_live(folder, prompt="Guten Tag")
    run(app)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("VLLM_URL", f"http://127.0.0.1:{free.getsockname()[1]}")
    app.run()
    assert not app.exception
    assert "cannot be reached" in page_html(app) and "Guten Tag" in page_html(app)
    monkeypatch.setenv("VLLM_URL", there.url)
    button(app, "Try again").click().run()
    assert app.text_area(key="prompt").value == "Guten Tag"


def test_the_scorers_are_those_that_can_score_here(
    open_live: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert open_live(tmp_path).selectbox(key="scorer").options == ["ngram"]
    monkeypatch.setenv("PERSPECTIVE_API_KEY", "k")
    st.cache_data.clear()
    app = AppTest.from_file(str(MAIN), default_timeout=60).switch_page("app_pages/live.py").run()
    assert app.selectbox(key="scorer").options == ["ngram", "perspective"]


def test_opening_the_page_imports_nothing_heavy(folder: Path, full: Path) -> None:
    heavy = {"torch", "transformers", "peft", "vllm", "sklearn", "ray"}
    script = (
        "import sys; from streamlit.testing.v1 import AppTest\n"
        f"sys.argv = ['main.py', '--db', {str(full)!r}, '--adapters', {str(folder)!r}]\n"
        f"app = AppTest.from_file({str(MAIN)!r}, default_timeout=60).switch_page('app_pages/live.py').run()\n"
        f"app.text_area(key='prompt').set_value({seed.SENTENCES[Language.DE]!r}).run()\n"
        "assert app.selectbox(key='prompt_lang').options[0] == 'Detected: German' and not app.exception\n"
        f"print({heavy!r} & set(sys.modules))"
    )
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert found.stdout.strip() == "set()", found.stdout + found.stderr[-2000:]
