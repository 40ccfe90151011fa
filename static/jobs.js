// The list of jobs: how many are selected, and all of a page at once.
"use strict";
{
  const boxes = () => [...document.querySelectorAll("#selection [name=ids]")];

  function count() {
    const all = byId("select-all"), selected = boxes().filter((box) => box.checked).length;
    if (!all) return;
    all.checked = selected > 0 && selected === boxes().length;
    all.indeterminate = selected > 0 && !all.checked;
    byId("selected-count").textContent = selected ? `${selected} selected` : "";
    for (const button of document.querySelectorAll("#selection button")) button.disabled = selected === 0;
  }

  document.addEventListener("change", (event) => {
    if (event.target.id === "select-all") for (const box of boxes()) box.checked = event.target.checked;
    if (event.target.closest("#selection")) count();
  });
  document.addEventListener("htmx:after:swap", count);
  addEventListener("pageshow", count); // a page that comes back has its boxes as they were
  count();
}
