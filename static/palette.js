// The palette (Ctrl+K), the sheet of shortcuts (?) and the keys that it lists.
"use strict";
{
  const palette = byId("palette"), input = byId("palette-input"), sheet = byId("shortcuts"), single = byId("single-keys");
  const PATIENCE_MS = 1500; // between the two keys of a shortcut
  let before = { key: "", at: 0 };

  function openPalette() {
    if (palette.open) return;
    input.value = "";
    palette.showModal(); // on close the browser gives the focus back
    input.focus();
    input.dispatchEvent(new Event("show"));
  }
  const openSheet = () => sheet.open || sheet.showModal();

  // --- Choosing from the palette: the focus stays in the field, the chosen line is its active descendant. ---
  const options = () => [...palette.querySelectorAll("[role=option]:not([aria-disabled])")];
  const chosen = () => palette.querySelector("[aria-selected=true]");

  function choose(option) {
    chosen()?.setAttribute("aria-selected", "false");
    option?.setAttribute("aria-selected", "true");
    option?.scrollIntoView({ block: "nearest" });
    if (option) input.setAttribute("aria-activedescendant", option.id);
    else input.removeAttribute("aria-activedescendant");
  }

  function go(option) {
    palette.close();
    const { go: address, post, script } = option.dataset;
    if (address) location.assign(address);
    else if (post) send(post);
    else if (script === "theme") byId("theme-toggle").click();
    else openSheet();
  }

  function send(address) {
    const form = Object.assign(document.createElement("form"), { method: "post", action: address });
    document.body.append(form);
    form.submit();
  }

  input.addEventListener("keydown", (event) => {
    const all = options(), at = all.indexOf(chosen());
    const to = { ArrowDown: (at + 1) % all.length, ArrowUp: (at - 1 + all.length) % all.length }[event.key];
    if (to !== undefined) choose(all[to]);
    else if (event.key === "Enter" && chosen()) go(chosen());
    else if (event.key === "Escape") palette.close(); // else it would only empty the field
    else return;
    event.preventDefault();
  });
  palette.addEventListener("click", (event) => {
    const option = event.target.closest("[role=option]:not([aria-disabled])");
    if (option) go(option);
    else if (event.target === palette) palette.close();
  });
  sheet.addEventListener("click", (event) => { if (event.target === sheet) sheet.close(); });
  document.addEventListener("htmx:after:swap", (event) => { if (event.target.id === "palette-input") choose(options()[0]); });
  byId("open-palette").addEventListener("click", openPalette);
  byId("open-shortcuts").addEventListener("click", openSheet);

  // --- Keys. Those without Ctrl can be switched off, since speech input and other tools type letters by chance. ---
  try { single.checked = localStorage.singleKeys !== "off"; } catch { /* storage is blocked: they are on */ }
  single.addEventListener("change", () => {
    try { localStorage.singleKeys = single.checked ? "on" : "off"; } catch { /* it holds for this page at least */ }
  });

  function press(keys) {
    const row = [...sheet.querySelectorAll("[data-keys]")].find((each) => each.dataset.keys === keys);
    if (row) location.assign(row.querySelector("a").href);
    return Boolean(row);
  }

  document.addEventListener("keydown", (event) => {
    if ((event.ctrlKey || event.metaKey) && !event.altKey && event.key.toLowerCase() === "k") {
      event.preventDefault();
      openPalette();
      return;
    }
    const typing = event.target.closest?.("input, textarea, select, [contenteditable]");
    if (!single.checked || typing || palette.open || sheet.open || event.ctrlKey || event.metaKey || event.altKey) return;
    const search = event.key === "/" && document.querySelector("main [type=search]");
    const pair = Date.now() - before.at < PATIENCE_MS ? `${before.key} ${event.key}` : "";
    before = { key: event.key, at: Date.now() };
    if (event.key === "?") openSheet();
    else if (search) search.focus();
    else if (!press(pair) && !press(event.key)) return;
    event.preventDefault();
  });
}
