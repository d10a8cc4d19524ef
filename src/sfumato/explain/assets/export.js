"use strict";
// What can be taken from a figure: its address, the picture as PNG and SVG, its numbers as CSV and JSON.
(() => {
  const S = Sfumato;

  S.save = (name, content, type) => {
    const link = S.el("a", { href: URL.createObjectURL(new Blob([content], { type })), download: name });
    document.body.append(link);
    link.click();
    setTimeout(() => { URL.revokeObjectURL(link.href); link.remove(); }, 1000);
  };

  /** The table of a figure as CSV; a cell with a comma, a quote or a line end is quoted. */
  S.csv = ({ columns, rows }) => {
    const cell = (v) => {
      let text = v === null || v === undefined ? "" : String(v);
      if (typeof v === "string" && /^[=+\-@\t\r]/.test(text)) text = `'${text}`; // no formula for a spreadsheet
      return /[",\n\r]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
    };
    return [columns, ...rows].map((row) => row.map(cell).join(",")).join("\n") + "\n";
  };

  const PAINT = ["fill", "stroke", "stroke-width", "stroke-dasharray", "font-size", "font-family", "font-weight", "fill-opacity", "opacity"];
  function styled(node) {
    const copy = node.cloneNode(true), originals = [node, ...node.querySelectorAll("*")], copies = [copy, ...copy.querySelectorAll("*")];
    originals.forEach((original, i) => {
      const style = getComputedStyle(original);
      copies[i].setAttribute("style", PAINT.map((name) => `${name}:${style.getPropertyValue(name)}`).join(";"));
      copies[i].removeAttribute("class");
    });
    return copy;
  }
  function enlarged(canvas, width, height) {
    const large = S.el("canvas", { width: Math.max(1, Math.round(width * 2)), height: Math.max(1, Math.round(height * 2)) });
    const context = large.getContext("2d");
    context.imageSmoothingEnabled = false;
    context.drawImage(canvas, 0, 0, large.width, large.height);
    return large.toDataURL("image/png");
  }
  /** What is seen of a figure as one SVG: its charts, its canvases as pictures, and the lines of text beside them. */
  S.compose = (root) => {
    const box = root.getBoundingClientRect(), paper = getComputedStyle(document.body).backgroundColor;
    const page = S.svg("svg", { xmlns: "http://www.w3.org/2000/svg", width: Math.ceil(box.width), height: Math.ceil(box.height), viewBox: `0 0 ${Math.ceil(box.width)} ${Math.ceil(box.height)}` });
    page.append(S.svg("rect", { width: "100%", height: "100%", fill: paper }));
    for (const node of root.querySelectorAll("svg, canvas, .under, .key, dt, dd, th, td, .text")) {
      const place = node.getBoundingClientRect(), x = place.left - box.left, y = place.top - box.top;
      if (!place.width || !place.height || node.parentElement.closest("svg")) continue;
      if (node.tagName === "CANVAS") {
        page.append(S.svg("image", { x, y, width: place.width, height: place.height, href: enlarged(node, place.width, place.height) }));
      } else if (node.tagName.toLowerCase() === "svg") {
        const copy = styled(node);
        for (const [name, value] of Object.entries({ x, y, width: place.width, height: place.height })) copy.setAttribute(name, value);
        page.append(copy);
      } else {
        const style = getComputedStyle(node), key = node.classList.contains("key") ? 36 : 0;
        page.append(S.svg("text", { x: x + key, y: y + place.height / 2 + 4, style: `font-family:${style.fontFamily};font-size:${style.fontSize};fill:${style.color}` }, node.textContent));
      }
    }
    return new XMLSerializer().serializeToString(page);
  };
  S.png = (root) => new Promise((done, fail) => {
    const picture = new Image(), text = S.compose(root);
    picture.onload = () => {
      const canvas = S.el("canvas", { width: picture.width * 2, height: picture.height * 2 });
      canvas.getContext("2d").drawImage(picture, 0, 0, canvas.width, canvas.height);
      canvas.toBlob((blob) => (blob ? done(blob) : fail(new Error("no picture"))), "image/png");
    };
    picture.onerror = () => fail(new Error("the picture can't be drawn"));
    picture.src = "data:image/svg+xml;charset=utf-8," + encodeURIComponent(text);
  });

  S.tools = (node, name, made, stored) => {
    const root = node.querySelector(".view"), said = S.el("span", { class: "said", role: "status" });
    const file = (ending) => `sfumato-${name}.${ending}`;
    const link = S.el("a", { href: `#at=fig-${name}`, class: "plain", onclick: () => { link.href = S.address(`fig-${name}`, made.keys); said.textContent = "the address is in the address bar"; } }, "Address");
    const json = () => S.save(file("json"), JSON.stringify(S.readable(stored), null, 1), "application/json");
    const csv = () => S.save(file("csv"), S.csv(made.table()), "text/csv");
    node.querySelector(".tools").replaceChildren(
      link,
      S.button("PNG", async () => S.save(file("png"), await S.png(root), "image/png")),
      S.button("SVG", () => S.save(file("svg"), S.compose(root), "image/svg+xml")),
      ...(made.table ? [S.button("CSV", csv)] : []),
      S.button("JSON", json),
      said,
    );
  };
  /** Stored data with its arrays as plain lists. */
  S.readable = (value) => {
    if (Array.isArray(value)) return value.map(S.readable);
    if (value === null || typeof value !== "object") return value;
    if (value.$ === undefined) return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, S.readable(v)]));
    const { data, shape } = S.unpack(value);
    return { shape, values: Array.from(data) };
  };
})();
