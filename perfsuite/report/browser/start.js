// Unpacks the data and starts.

async function unpacked() {
  const bytes = Uint8Array.from(atob($("data").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Response(stream).json();
}

function follow() {
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  addEventListener("beforeprint", () => {
    root.dataset.scheme = "light";
    drawWhatIsLeft();
    redraw();
  });
  addEventListener("afterprint", () => {
    delete root.dataset.scheme;
    redraw();
  });
}

async function start() {
  if (table) wireTable();
  $("close").addEventListener("click", () => $("test").close());
  if (typeof DecompressionStream === "undefined") {
    $("too-old").hidden = false;
    return;
  }
  data = await unpacked();
  follow();
  wireRatios();
  document.querySelectorAll("[data-picture]").forEach((element, number) =>
    later(element, () => data.pictures[number]));
  root.dataset.ready = "true";
}

start();
