// A chart by keyboard: arrows move the cursor from row to row, + and - zoom about it, 0 shows the whole run.

const FAR = 10;

export function watchKeys(chart) {
  chart.box.setAttribute("aria-keyshortcuts", "ArrowLeft ArrowRight Home End PageUp PageDown + - 0");
  chart.box.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (act(chart, event.key, event.shiftKey)) event.preventDefault();
  });
  chart.box.addEventListener("blur", () => chart.board.point(chart, null));
}

/** Returns whether the key was one of ours. */
function act(chart, key, shift) {
  const x = chart.data[0], { min, max } = chart.plot.scales.x;
  if (x.length === 0) return false;
  const first = x.findIndex((place) => place >= min), last = x.findLastIndex((place) => place <= max);
  const now = chart.idx ?? (key === "ArrowLeft" ? last + 1 : first - 1);
  const page = Math.max(1, Math.round((last - first) / 10));
  const moves = { ArrowLeft: now - (shift ? FAR : 1), ArrowRight: now + (shift ? FAR : 1), Home: first, End: last, PageUp: now - page, PageDown: now + page };
  if (key in moves) {
    moveTo(chart, Math.min(Math.max(moves[key], first), last));
    return true;
  }
  if (key === "+" || key === "=" || key === "-") {
    zoom(chart, key === "-" ? 2 : 0.5, x[Math.min(Math.max(now, first), last)]);
    return true;
  }
  if (key === "0" || (key === "Escape" && chart.board.zoomed)) {
    chart.board.reset();
    speak(chart, "The whole run is shown.");
    return true;
  }
  return false;
}

function moveTo(chart, row) {
  chart.showCursor(chart.data[0][row]);
  chart.board.point(chart, row);
  speak(chart, chart.tell(row));
}

function zoom(chart, factor, about) {
  const { min, max } = chart.plot.scales.x;
  const width = (max - min) * factor, whole = chart.whole();
  const from = Math.max(about - ((about - min) / (max - min)) * width, whole[0]);
  chart.board.zoom(chart, from, Math.min(from + width, whole[1]));
  const [left, right] = chart.xRange(...whole);
  speak(chart, `${chart.xText(Math.round(left))} to ${chart.xText(Math.round(right))}`);
}

/** For screen readers, and only when a key was pressed: points that arrive don't interrupt. */
function speak(chart, text) {
  chart.figure.querySelector("[data-spoken]").textContent = text;
}
