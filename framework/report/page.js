for (const svg of document.querySelectorAll("svg.chart")) {
  const lines = JSON.parse(svg.dataset.lines), frame = JSON.parse(svg.dataset.frame);
  const card = svg.closest(".card"), told = card.querySelector(".now"), last = told.textContent;
  const cursor = svg.querySelector(".cursor");
  const keys = [...card.querySelectorAll(".key")], values = keys.map(key => key.querySelector("b"));
  const before = values.map(value => value.textContent);
  const show = value => Number(value).toPrecision(4).replace(/\.?0+($|e)/, "$1");
  svg.addEventListener("pointermove", event => {
    const box = svg.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width * frame.width;
    const share = Math.min(1, Math.max(0, (x - frame.left) / (frame.right - frame.left)));
    const step = frame.low + share * (frame.high - frame.low);
    const near = lines.map(line => line.points.length ? line.points.reduce((a, b) =>
      Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a) : null);
    const some = near.filter(point => point), nearest = some.reduce((a, b) =>
      Math.abs(b[0] - step) < Math.abs(a[0] - step) ? b : a)[0];
    const place = frame.left + (nearest - frame.low) / (frame.high - frame.low) * (frame.right - frame.left);
    cursor.setAttribute("x1", place); cursor.setAttribute("x2", place); cursor.style.visibility = "visible";
    // A curve of its own for each name in the legend: the values stand there, where there is one at this step.
    values.forEach((value, index) => {
      value.textContent = near[index] && near[index][0] === nearest ? show(near[index][1]) : "–";
    });
    told.textContent = (keys.length ? "" : some.map(point => show(point[1])).join(" / ") + " ") + "at step " + nearest;
  });
  svg.addEventListener("pointerleave", () => {
    cursor.style.visibility = "hidden"; told.textContent = last;
    values.forEach((value, index) => { value.textContent = before[index]; });
  });
  keys.forEach((key, index) => {
    const curve = svg.querySelector(`[data-line="${index}"]`);
    const choose = chosen => { svg.classList.toggle("others", chosen); curve.classList.toggle("chosen", chosen); };
    key.addEventListener("pointerenter", () => choose(true));
    key.addEventListener("pointerleave", () => choose(false));
  });
}
