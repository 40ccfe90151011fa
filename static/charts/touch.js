// A finger on a chart does what the mouse does: along it to zoom, a tap to read. Up and down still scrolls the page.

const AS_MOUSE = { pointerdown: "mousedown", pointermove: "mousemove", pointerup: "mouseup", pointercancel: "mouseup" };

/** From the first touch on; `down` is its pointerdown. */
export function touch(chart, down) {
  const { over } = chart.plot;
  const pass = (event) => {
    if (event.pointerId !== down.pointerId) return;
    const { clientX, clientY } = event.type === "pointercancel" ? down : event; // scrolled: nothing is chosen
    // uPlot takes a mouse that did not move for no drag
    over.dispatchEvent(new MouseEvent(AS_MOUSE[event.type], { clientX, clientY, movementX: 1, bubbles: true }));
    if (AS_MOUSE[event.type] === "mouseup") stop.abort();
  };
  const stop = new AbortController();
  for (const type of ["pointermove", "pointerup", "pointercancel"]) addEventListener(type, pass, { signal: stop.signal });
  chart.hovered = true;
  pass(down);
}
