// The table: sorted and filtered as it stands in the page, with or without the data.

const table = $("tests");
const body = table && table.tBodies[0];
const rows = body ? [...body.rows] : [];
const texts = rows.map((row) => row.textContent.toLowerCase());

function filter() {
  const words = $("search").value.toLowerCase().split(/\s+/).filter(Boolean);
  const verdict = $("verdict").value, engine = $("engine").value, suite = $("suite").value;
  let found = 0;
  rows.forEach((row, number) => {
    const fits = words.every((word) => texts[number].includes(word))
      && (!verdict || row.dataset.verdicts.split(" ").includes(verdict))
      && (!engine || row.dataset.engine === engine)
      && (!suite || row.dataset.suite === suite);
    row.hidden = !fits;
    found += fits;
  });
  $("found").textContent = `${found} of ${rows.length}`;
  $("none-found").hidden = found > 0;
  for (const chip of document.querySelectorAll(".count")) {
    chip.setAttribute("aria-pressed", String(chip.dataset.verdict === verdict));
  }
}

function sortBy(header) {
  const up = header.getAttribute("aria-sort") !== "ascending";
  for (const other of header.parentElement.cells) other.setAttribute("aria-sort", "none");
  header.setAttribute("aria-sort", up ? "ascending" : "descending");
  const place = header.cellIndex;
  const isNumber = header.classList.contains("number") || place === 0;
  const key = (row) => {
    const cell = row.cells[place];
    if (!isNumber) return cell.textContent.trim();
    return cell.dataset.v === "" ? null : Number(cell.dataset.v);
  };
  const order = new Intl.Collator(undefined, { numeric: true }).compare;
  const keyed = rows.map((row) => [key(row), row]);
  keyed.sort(([a], [b]) => {
    if (a === null || b === null) return (a === null) - (b === null); // what is missing, last
    return (up ? 1 : -1) * (isNumber ? a - b : order(a, b));
  });
  body.append(...keyed.map(([, row]) => row));
}

function wireTable() {
  $("search").addEventListener("input", filter);
  for (const id of ["verdict", "engine", "suite"]) $(id).addEventListener("change", filter);
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  for (const header of table.tHead.rows[0].cells) {
    header.firstElementChild.addEventListener("click", () => sortBy(header));
  }
  $("reset").addEventListener("click", () => {
    document.querySelector(".filters").reset();
    filter();
  });
  for (const chip of document.querySelectorAll(".count")) {
    chip.addEventListener("click", () => {
      const pressed = chip.getAttribute("aria-pressed") === "true";
      const known = [...$("verdict").options].some((o) => o.value === chip.dataset.verdict);
      if (!known) return $("gone-title").scrollIntoView(); // a baseline that no test has
      $("verdict").value = pressed ? "" : chip.dataset.verdict;
      filter();
      if (!pressed) $("workloads").scrollIntoView();
    });
  }
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("[data-open]");
  if (button && data) open(Number(button.dataset.open));
});
