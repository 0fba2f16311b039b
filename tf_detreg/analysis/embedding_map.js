"use strict";
// The map of an embedding: thumbnails for the pointer, a finger or the keyboard; classes and methods to choose.
for (const map of document.querySelectorAll(".map")) {
  const [bar, field, said, sheet] = [".map-bar", ".map-field", ".map-said", ".map-sprites"].map((s) => map.querySelector(s));
  const [svg, tip] = [field.querySelector("svg"), field.querySelector(".map-tip")];
  const [canvas, words] = [tip.querySelector("canvas"), tip.querySelector("span")];
  const select = bar.querySelector("select");
  const [tile, columns] = [Number(sheet.dataset.tile), Number(sheet.dataset.columns)];
  const [width, height] = [svg.viewBox.baseVal.width, svg.viewBox.baseVal.height];
  const hint = "Arrow keys go from image to image, Page Up and Page Down through the images of a class.";
  const groups = [...svg.querySelectorAll("g")];
  const points = [];
  groups.forEach((group, number) => {
    const title = group.querySelector("title");
    const name = title.textContent;
    title.remove(); // the browser's own tooltip would lie over ours
    for (const circle of group.querySelectorAll("circle")) {
      const at = circle.dataset.at.split(" ").map(Number);
      points.push({circle, at, x: at[0], y: at[1], n: Number(circle.dataset.n), group: number, name});
    }
  });
  const names = groups.map((_, number) => points.find((point) => point.group === number).name);
  const order = names.map((_, number) => number).sort((a, b) => names[a].localeCompare(names[b]));
  select.options[0].textContent = `all ${groups.length}`;
  for (const number of order) select.add(new Option(names[number], String(number)));
  const ring = document.createElementNS("http://www.w3.org/2000/svg", "circle");
  ring.setAttribute("class", "ring");
  ring.setAttribute("r", "9");
  let current = null;

  function highlight(number) {
    svg.classList.toggle("dim", number !== null);
    groups.forEach((group, n) => group.classList.toggle("on", n === number));
  }

  function chosen() {
    return select.value === "" ? null : Number(select.value);
  }

  function hide() {
    tip.hidden = true;
    ring.remove();
    highlight(chosen());
  }

  function show(point, aloud) {
    current = point;
    ring.setAttribute("cx", point.x);
    ring.setAttribute("cy", point.y);
    svg.append(ring);
    canvas.width = canvas.height = 2 * tile;
    canvas.getContext("2d").drawImage(
      sheet, (point.n % columns) * tile, Math.floor(point.n / columns) * tile, tile, tile, 0, 0, 2 * tile, 2 * tile);
    words.textContent = point.name;
    tip.hidden = false;
    const scale = svg.clientWidth / width;
    const [x, y] = [point.x * scale, point.y * scale];
    const left = x + 14 + tip.offsetWidth > field.clientWidth ? x - 14 - tip.offsetWidth : x + 14;
    tip.style.left = `${Math.max(0, Math.min(left, field.clientWidth - tip.offsetWidth))}px`;
    tip.style.top = `${Math.max(0, Math.min(y - tip.offsetHeight / 2, field.clientHeight - tip.offsetHeight))}px`;
    highlight(chosen() ?? point.group);
    if (aloud) said.textContent = point.name;
  }

  function nearest(event) {
    const box = svg.getBoundingClientRect();
    const scale = box.width / width;
    const [x, y] = [(event.clientX - box.left) / scale, (event.clientY - box.top) / scale];
    const reach = (event.pointerType === "mouse" ? 16 : 30) / scale;
    const away = (point) => Math.hypot(point.x - x, point.y - y);
    let best = null;
    for (const point of points) {
      if (chosen() !== null && point.group !== chosen()) continue;
      if (away(point) <= reach && (best === null || away(point) < away(best))) best = point;
    }
    return best;
  }

  const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};

  function next(key) {
    const among = points.filter((point) => chosen() === null || point.group === chosen());
    if (current === null || !among.includes(current)) {
      const middle = (point) => Math.hypot(point.x - width / 2, point.y - height / 2);
      return among.reduce((a, b) => (middle(b) < middle(a) ? b : a));
    }
    if (key === "PageUp" || key === "PageDown") {
      const same = points.filter((point) => point.group === current.group);
      return same[(same.indexOf(current) + (key === "PageDown" ? 1 : same.length - 1)) % same.length];
    }
    if (!(key in arrows)) return current;
    const [dx, dy] = arrows[key];
    let [best, least] = [current, Infinity];
    for (const point of among) {
      const [x, y] = [point.x - current.x, point.y - current.y];
      const [along, aside] = [x * dx + y * dy, Math.abs(x * dy) + Math.abs(y * dx)];
      if (along > 0 && along + 2 * aside < least) [best, least] = [point, along + 2 * aside];
    }
    return best;
  }

  field.tabIndex = 0;
  field.setAttribute("role", "application");
  field.setAttribute("aria-label", `${svg.getAttribute("aria-label")}. ${hint}`);
  field.addEventListener("pointermove", (event) => {
    if (event.pointerType !== "mouse") return;
    const point = nearest(event);
    if (point) show(point, false); else hide();
  });
  field.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") hide(); });
  field.addEventListener("click", (event) => {
    const point = nearest(event);
    if (point) show(point, true); else hide();
  });
  field.addEventListener("focus", () => {
    if (field.matches(":focus-visible")) show(next(""), true);
  });
  field.addEventListener("blur", hide);
  field.addEventListener("keydown", (event) => {
    if (event.key === "Escape") hide();
    else if (event.key in arrows || event.key.startsWith("Page")) {
      event.preventDefault();
      show(next(event.key), true);
    }
  });
  select.addEventListener("change", hide);
  for (const input of bar.querySelectorAll("input")) {
    input.addEventListener("change", () => {
      const view = 2 * Number(input.value);
      for (const point of points) {
        [point.x, point.y] = [point.at[view], point.at[view + 1]];
        point.circle.setAttribute("cx", point.x);
        point.circle.setAttribute("cy", point.y);
      }
      svg.setAttribute("aria-label", svg.getAttribute("aria-label").replace(/by .*/, `by ${input.parentNode.textContent}`));
      field.setAttribute("aria-label", `${svg.getAttribute("aria-label")}. ${hint}`);
      hide();
    });
  }
  bar.hidden = false;
  if (bar.querySelectorAll("input").length < 2) bar.querySelector("fieldset").hidden = true;
}
