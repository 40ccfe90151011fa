// A large upload shows how far it is: fetch, and so htmx, tells nothing of what is sent.
"use strict";

const LARGE_BYTES = 4 * 2 ** 20;

document.addEventListener("submit", (event) => {
  const form = event.target;
  const file = form.id === "upload-form" ? form.elements.file.files[0] : null;
  if (!file || file.size < LARGE_BYTES) return;
  event.preventDefault();
  event.stopImmediatePropagation(); // htmx would send it, too
  send(form);
}, true);

function send(form) {
  const request = new XMLHttpRequest(), begun = performance.now();
  const row = form.querySelector("[data-upload]"), state = form.querySelector("[data-upload-state]");
  const [bar, numbers, cancel] = row.children, button = form.querySelector("button[type=submit]");
  const tell = (words, sending) => {
    state.textContent = words;
    row.hidden = !sending;
    button.disabled = sending;
  };
  tell("Uploads the file…", true);
  cancel.onclick = () => request.abort();
  request.upload.onprogress = ({ loaded, total }) => {
    const left = ((performance.now() - begun) / 1000) * (total / loaded - 1);
    bar.value = loaded / total;
    numbers.textContent = `${Math.floor((100 * loaded) / total)} % of ${(total / 2 ** 20).toFixed(0)} MiB · ${Math.ceil(left)} s left`;
  };
  request.upload.onload = () => {
    bar.removeAttribute("value");
    numbers.textContent = "";
    tell("It is stored. Its rows are being checked…", true);
  };
  request.onabort = () => tell("The upload was cancelled; nothing of it is kept.", false);
  request.onerror = () => tell("The connection broke off; nothing was kept. Is the dashboard still running?", false);
  request.onload = () => answer(form, request, tell);
  request.open("POST", form.action);
  request.setRequestHeader("HX-Request", "true");
  request.send(new FormData(form));
}

/** The dataset's page; or the form again, with what is wrong. */
function answer(form, request, tell) {
  const address = request.getResponseHeader("HX-Redirect");
  if (address) location.assign(address);
  else if (![413, 422].includes(request.status)) tell(`The dashboard could not take it (${request.status}); its log says why.`, false);
  else {
    form.outerHTML = request.responseText;
    const again = document.getElementById("upload-form");
    htmx.process(again);
    again.querySelector("[aria-invalid=true]")?.focus();
  }
}
