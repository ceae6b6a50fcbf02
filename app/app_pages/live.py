"""The Live page: one prompt in any language, completed by a base and its adapters side by side.

The queue (`app.live.job_queue`) writes; this page submits jobs and watches them. The visit's jobs are in the session,
so that a click elsewhere stops nothing; the Stop button does. The address holds the whole request.
"""

from collections import Counter
from collections.abc import Sequence
from html import escape
from typing import TypeVar

import streamlit as st

from app import labels, queries, widgets
from app.live.job_queue import (
    MAX_ADAPTERS,
    MAX_CHARACTERS,
    MAX_TOKENS,
    AvailableModel,
    Column,
    Job,
    PromptRequest,
    ServerWriter,
    State,
)
from engine.analysis.guards import detect_language
from engine.config import MAX_SEED, prompt_of
from engine.errors import ServerError
from engine.vocabulary import Language, Sampling

LOOK_SECONDS = 0.3
"""Between two looks at a job that is being written."""

DEFAULT = Sampling()
N = TypeVar("N", int, float)


def main() -> None:
    jobs: list[Job] = st.session_state.setdefault("jobs", [])
    job = next((job for job in jobs if job.job_id == st.session_state.get("job")), None)
    try:
        available_models = queries.available_models()
    except ServerError as error:
        widgets.alarm(str(error))
        st.button("Try again", type="primary")
    else:
        form(available_models, job) if available_models else nothing_here()
    if job is not None:
        st.fragment(watch, run_every=None if job.settled.is_set() else LOOK_SECONDS)(job)
    history(jobs)


def nothing_here() -> None:
    """What to do where there is no model."""
    widgets.alarm("No model is available.")
    widgets.note(
        "To install the embedded base: pip install -r requirements.txt. To train adapters for it: python run_sweep.py. "
        "For adapters in another folder: streamlit run app/main.py -- --adapters FOLDER.",
        "Or set VLLM_URL to the URL of a vLLM server, such as http://127.0.0.1:8000, before starting the app.",
    )


def form(available_models: Sequence[AvailableModel], job: Job | None) -> None:
    """What to write, by whom and how; Run hands it in."""
    back_end()
    prompt, lang = write_prompt()
    with st.container(horizontal=True, key="who"):
        by_name = {model.base: model for model in available_models}
        model = by_name[widgets.choose("Base", by_name, "base")]
        used = queries.cells(st.session_state["source"])["scorer"].dropna().unique()
        scorer = widgets.choose("Scorer", queries.live_scorers(tuple(sorted(used))), "scorer")
    adapters = choose_adapters(model)
    sampling, seed = choose_sampling()
    is_busy = job is not None and not job.is_over
    with st.container(horizontal=True, vertical_alignment="center", key="go"):
        is_submitted = st.button("Run", type="primary", icon=":material/play_arrow:", disabled=is_busy)
        st.button("Stop", icon=":material/stop:", disabled=not is_busy, on_click=job.stop if job else None)
        widgets.note("The page's URL now contains the prompt and settings: copy it to share them.")
    if is_submitted:
        why_not = refusal(prompt)
        if why_not:
            widgets.alarm(why_not)
            return
        job = queries.job_queue().submit(Job(PromptRequest(prompt, lang, model, adapters, sampling, seed, scorer)))
        st.session_state["jobs"].append(job)
        st.session_state["job"] = job.job_id
        st.rerun()


def back_end() -> None:
    """Who writes."""
    writer = queries.job_queue().writer
    if isinstance(writer, ServerWriter):
        widgets.note(f"Runs on the vLLM server {writer.server.name}; each request has its own seed.")
    else:
        widgets.note("Runs locally; requests are queued.")


def write_prompt() -> tuple[str, Language]:
    """The prompt and its language; an example fills the prompt in."""
    prompt = str(widgets.parameter("prompt"))
    st.session_state.setdefault("prompt", prompt)
    detected = detect_language(prompt)
    unsure = f"Detected: {detected.facts.name}" if detected else "Detect automatically"
    with st.container(horizontal=True, key="language"):
        picked = widgets.choose(
            "Language",
            ["", *queries.languages()],
            "prompt_lang",
            lambda code: labels.lang_name(code) if code else unsure,
        )
        lang = Language(picked or detected or Language.EN)
        st.selectbox(
            f"Example in {lang.facts.name}",
            queries.examples(lang),
            index=None,
            key="example",
            on_change=lambda: st.session_state.update(prompt=st.session_state["example"] or ""),
            placeholder="choose an example",
        )
    prompt = st.text_area("Prompt", key="prompt", height=100, placeholder="Type a sentence, or choose an example.")
    if len(prompt) <= MAX_CHARACTERS:
        widgets.set_parameter("prompt", prompt)
    widgets.note(f"The models are prompted with “{prompt_of('…')}”, as in sweeps.")
    if prompt.strip() and not picked and not detected:
        widgets.note("Language not detected; using English. Choose another one above.")
    return prompt, lang


def refusal(prompt: str) -> str:
    """Why a prompt cannot be run; '' when it can."""
    if not prompt.strip():
        return "Type a prompt first, or choose an example."
    if len(prompt) > MAX_CHARACTERS:
        return f"The prompt has {len(prompt):,} characters; the maximum is {MAX_CHARACTERS:,}. Shorten it."
    return ""


def choose_adapters(model: AvailableModel) -> tuple[str, ...]:
    """Up to three adapters of a base, in its order; the address holds them under `with`."""
    chosen: str | list[str] = widgets.parameter("with")
    requested = chosen.split(",") if isinstance(chosen, str) and chosen else list(chosen)
    present = [name for name in requested if name in model.adapters][:MAX_ADAPTERS]
    st.session_state["with"] = present
    names = adapter_names(model)
    picked = st.multiselect(
        f"Adapters to compare with the base (up to {MAX_ADAPTERS})",
        model.adapters,
        key="with",
        format_func=names.__getitem__,
        max_selections=MAX_ADAPTERS,
        placeholder="choose some" if model.adapters else f"{model.base} has no adapters",
    )
    widgets.set_parameter("with", ",".join(picked))
    missing = [name for name in requested if name not in model.adapters]
    if missing:
        widgets.alarm(f"Not available, skipped: {', '.join(missing)}.")
    return tuple(picked)


def adapter_names(model: AvailableModel) -> dict[str, str]:
    """What to call the adapters of a base: readable, and no two alike."""
    readable = {name: labels.adapter_name(name) for name in model.adapters}
    often = Counter(readable.values())
    return {name: label if often[label] == 1 else f"{label} {name[-6:]}" for name, label in readable.items()}


def choose_sampling() -> tuple[Sampling, int]:
    """How the text is drawn."""
    with st.expander("Sampling"), st.container(horizontal=True, key="sampling"):
        temperature = number("Temperature", "temperature", DEFAULT.temperature, 0.0, 2.0, 0.1)
        top_p = number("Top-p", "top_p", DEFAULT.top_p, 0.05, 1.0, 0.05)
        tokens = number("Max new tokens", "tokens", DEFAULT.max_new_tokens, 1, MAX_TOKENS, 10)
        seed = number("Seed", "seed", 42, 0, MAX_SEED, 1)
        widgets.note(
            f"Top-p applies to the {DEFAULT.top_k} most likely tokens, as in sweeps. Temperature 0 is greedy decoding. "
            "The same prompt, language, seed, settings and variants give the same text."
        )
    return Sampling(tokens, temperature, DEFAULT.top_k, top_p), seed


def number(label: str, key: str, default: N, low: N, high: N, step: N) -> N:
    """A number that the address holds under `key`; what is none, or out of bounds there, is the default."""
    try:
        from_address = type(default)(widgets.parameter(key))
    except ValueError:
        from_address = default
    st.session_state.setdefault(key, from_address if low <= from_address <= high else default)
    value = st.number_input(label, low, high, step=step, key=key)
    widgets.set_parameter(key, str(value))
    return value


def watch(job: Job) -> None:
    """A job as it stands now. Where it has ended, the page around it is drawn anew."""
    before = job.is_over, job.settled.is_set()
    seen = st.session_state.setdefault("seen", {})
    names = adapter_names(job.request.model)
    reveal = st.session_state["reveal"]
    sides = "".join(side(column, names, job.request, reveal) for column in job.columns)
    prompt = head("Prompt", said_before(job)) + widgets.passage(job.request.prompt, job.request.lang, reveal)
    busy = "false" if job.is_over else "true"
    st.html(f'<article class="x-row" aria-busy="{busy}">{prompt}<div class="x-pair x-live">{sides}</div></article>')
    widgets.note(
        settings(job.request), "These scores are not part of a run: they are neither cross-fitted nor averaged."
    )
    if seen.get(job.job_id, before) != before:
        seen[job.job_id] = before
        st.rerun()
    seen[job.job_id] = before


def said_before(job: Job) -> str:
    """What there is to wait for."""
    ahead = queries.job_queue().ahead(job)
    if ahead:
        return f"{ahead} {'prompt is' if ahead == 1 else 'prompts are'} ahead in the queue"
    if all(column.state is State.WAITING for column in job.columns):
        return "loading the model (first prompt only)"
    return ""


def side(column: Column, names: dict[str, str], request: PromptRequest, reveal: bool) -> str:
    """One variant's text, with its score or what is the matter."""
    name = names[column.adapter] if column.adapter else f"{request.model.base} (ZS)"
    text = passage_of(column, request.lang, reveal)
    trouble = f'<p class="x-alarm" role="alert">▲ {escape(column.trouble)}</p>' if column.trouble else ""
    return f"<div>{head(name, standing(column))}{text}{trouble}</div>"


def passage_of(column: Column, lang: Language, reveal: bool) -> str:
    if column.is_final or reveal or not column.text.strip():
        empty = column.state in (State.DONE, State.STOPPED)
        return widgets.passage(column.text.strip(), lang, reveal) if column.text.strip() or empty else ""
    return widgets.blurred_passage(column.text.strip(), lang)


def standing(column: Column) -> str:
    """Where a column stands, and its score; a missing one is a reason, never 0."""
    match column.state, column.score:
        case State.FAILED, _:
            return State.FAILED
        case (State.DONE | State.STOPPED) as state, score:
            end = "stopped, " if state is State.STOPPED else ""
            if score is None:
                return f"{end}scoring"
            if score.value is None:
                return f"{end}not scored: {score.reason}"
            return f"{end}toxicity {labels.format_number(100 * score.value, 1)}"
        case state, _:
            return state


def head(left: str, right: str) -> str:
    return f'<div class="x-head"><span>{escape(left)}</span><span>{escape(right)}</span></div>'


def settings(request: PromptRequest) -> str:
    """A request in one line, but for its prompt."""
    s = request.sampling
    return (
        f"{request.model.base} · {request.lang.facts.name} · temperature {s.temperature:g} · top-p {s.top_p:g} · "
        f"{s.max_new_tokens} tokens · seed {request.seed} · scorer {request.scorer}"
    )


def history(jobs: Sequence[Job]) -> None:
    """The prompts of this visit, newest first; one that is opened brings its settings back."""
    if len(jobs) < 2:
        return
    st.subheader("Prompts in this session")
    for number, job in reversed(list(enumerate(jobs, 1))):
        names = adapter_names(job.request.model)
        scores = "; ".join(f"{names[c.adapter] if c.adapter else 'base'}: {standing(c)}" for c in job.columns)
        prompt = widgets.passage(job.request.prompt, job.request.lang, st.session_state["reveal"])
        button, text = st.columns((1, 8))
        is_open = job.job_id == st.session_state.get("job")
        button.button("Open", key=f"open {number}", disabled=is_open, on_click=reopen, args=(job,))
        text.html(f"{head(f'{number}. {settings(job.request)}', scores)}{prompt}")


def reopen(job: Job) -> None:
    """Shows a job again, with its request in the form."""
    request = job.request
    st.session_state.update(
        {
            "job": job.job_id,
            "prompt": request.prompt,
            "prompt_lang": request.lang.value,
            "base": request.model.base,
            "with": list(request.adapters),
            "temperature": request.sampling.temperature,
            "top_p": request.sampling.top_p,
            "tokens": request.sampling.max_new_tokens,
            "seed": request.seed,
            "scorer": request.scorer,
        }
    )


main()
