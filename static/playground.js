// Answers as they come: pieces go in as text, a whole answer takes their place, the region is read anew behind the last.
"use strict";
{
  const region = () => byId("playground");
  const told = (event) => {
    const { job_id, data } = JSON.parse(event.detail.data);
    return String(job_id) === region()?.dataset.chat ? data : null;
  };
  const shown = ({ turn, side }) => document.querySelector(`[data-answer="${Number(turn)}-${side === "base" ? "base" : "tuned"}"]`);

  function refresh() {
    htmx.ajax("GET", region().dataset.address, { target: "#playground", swap: "outerMorph" });
  }

  /** Put text into an answer; who looks at the page's end goes on to see it. */
  function put(answer, text) {
    const { scrollHeight, clientHeight } = document.documentElement;
    const atEnd = scrollHeight - scrollY - clientHeight < 48;
    answer.textContent = text;
    if (atEnd) scrollTo(scrollX, document.documentElement.scrollHeight);
  }

  document.addEventListener("piece", (event) => {
    const piece = told(event), answer = piece && shown(piece);
    if (!answer) return;
    const before = Array.from(answer.textContent); // `at` counts characters, a string's length their halves
    if (piece.at > before.length) refresh();
    else put(answer, before.slice(0, piece.at).join("") + piece.text);
  });

  document.addEventListener("answer", (event) => {
    const answer = told(event), place = answer && shown(answer);
    if (place && answer.text) put(place, answer.text);
    if (!answer?.done) return;
    refresh();
    byId("chat-announced").textContent = answer.error ? "The question could not be answered." : "The answer is complete.";
  });

  document.addEventListener("keydown", (event) => {
    if (event.target.id !== "chat-prompt" || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    const send = event.target.form.querySelector("[type=submit]");
    if (!send.disabled) event.target.form.requestSubmit(send);
  });

  /** What was asked leaves the form, unless it was refused; morphing keeps what somebody has typed. */
  document.addEventListener("htmx:after:swap", (event) => {
    const ctx = event.detail?.ctx, prompt = byId("chat-prompt");
    if (ctx?.sourceElement?.id !== "chat-form" || !prompt) return;
    if (ctx.response?.status === 200) prompt.value = "";
    prompt.focus();
    byId("chat-announced").textContent = "";
  });
}
