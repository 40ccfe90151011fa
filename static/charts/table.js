// The rows of a chart as a table, newest first, while its "Show data" is open.

const MOST = 200;

export function fillTable(chart) {
  const details = chart.figure.querySelector("[data-table]");
  const known = chart.known(), [x] = chart.data;
  const table = document.createElement("table");
  const head = table.createTHead().insertRow();
  for (const text of [chart.xLabel, ...known.map(({ label }) => label)]) {
    const cell = head.appendChild(document.createElement("th"));
    cell.scope = "col";
    cell.textContent = text;
  }
  const body = table.createTBody();
  for (let row = x.length - 1; row >= Math.max(0, x.length - MOST); row -= 1) {
    const line = body.insertRow();
    line.insertCell().textContent = chart.xText(x[row]);
    for (const { values } of known) line.insertCell().textContent = values[row] === undefined ? "" : chart.format(values[row]);
  }
  details.querySelector(".scroll").replaceChildren(table);
  if (x.length > MOST) {
    const note = details.querySelector(".scroll").insertAdjacentElement("beforeend", document.createElement("p"));
    note.textContent = `The newest ${MOST} of ${x.length} rows. The CSV file holds every point.`;
  }
}
