"use strict";
/* The page: its form, its pictures, its film. All computing is the worker's. */
(() => {
  const $ = (id) => document.getElementById(id), text = (id) => $(id).textContent;
  const plan = JSON.parse(text("plan")), levels = JSON.parse(text("levels")), [channels, height, width] = plan.shape;
  const worker = new Worker(URL.createObjectURL(new Blob([text("worker")], { type: "text/javascript" })));
  let frames = [], drawn = 0, result = null, busy = true, playing = 0;

  const option = (value, name) => Object.assign(document.createElement("option"), { value, textContent: name });

  function fill() {
    for (const attribute of plan.attributes) {
      const label = document.createElement("label"), field = document.createElement(attribute.values ? "select" : "input");
      label.append(attribute.name + " ", field);
      field.className = "label";
      if (attribute.values) {
        if (!plan.complete) field.append(option("", "not given"));
        attribute.values.forEach((value, k) => field.append(option(String(k), value)));
      } else {
        Object.assign(field, { type: "number", step: "any", placeholder: plan.complete ? "" : "not given" });
        field.value = plan.complete ? attribute.mean : "";
        field.required = plan.complete;
      }
      $("labels").append(label);
    }
    $("guidancelabel").hidden = !plan.guidable;
    $("usual").hidden = !plan.usual.length;
    plan.samplers.forEach((sampler, k) => $("sampler").append(option(String(k), sampler.name)));
    steps();
  }

  function steps() {
    const sampler = plan.samplers[$("sampler").value];
    $("steps").replaceChildren(...Object.keys(levels[sampler.grid]).map((n) => option(n, n)));
    $("steps").value = String(sampler.steps);
  }

  /* Numbers of the fields, NaN where nothing is given. */
  const given = () => [...document.querySelectorAll(".label")].map((field, k) => {
    if (field.value === "") return NaN;
    const { values, mean, std } = plan.attributes[k];
    return values ? Number(field.value) : (Number(field.value) - mean) / std;
  });
  const isGiven = (row) => row.some((number) => !isNaN(number));
  const isUsual = () => plan.usual.length > 0 && !isGiven(given()) && !$("unconditional").checked;

  /* The network's condition of each image: the fields', or those of training images. */
  function conditions(num) {
    const row = given(), usual = isUsual() && plan.usual.map((each) => each.map((number) => number ?? NaN));
    return Array.from({ length: num }, (_, i) => (usual ? usual[i % usual.length] : row));
  }

  function label() {
    const words = [...document.querySelectorAll(".label")].map((field, k) => {
      const { name, values } = plan.attributes[k];
      return field.value === "" ? "" : `${name}=${values ? values[field.value] : field.value}`;
    }).filter(Boolean).join(",");
    if (!words) return plan.usual.length && !isUsual() ? " --label unconditional" : "";
    return ` --label '${words.replaceAll("'", "'\\''")}'`;
  }

  const canGuide = () => plan.guidable && (isGiven(given()) || isUsual());
  const guidance = () => (canGuide() ? Number($("guidance").value) : 1);

  function describe() {
    $("guidance").disabled = !canGuide();
    $("unconditional").disabled = isGiven(given());
    $("guidancevalue").textContent = guidance();
    const weight = guidance();
    $("command").textContent = `sfumato sample ${plan.source} --sampler ${plan.samplers[$("sampler").value].sampler}`
      + ` --steps ${$("steps").value} --seed ${$("seed").value} --num ${$("num").value}${label()}`
      + (weight === 1 ? "" : ` --guidance ${weight}`);
  }

  function enable() {
    for (const id of ["draw", "next"]) $(id).disabled = busy;
    $("stop").disabled = !busy || !drawn;
    for (const id of ["save", "play", "frame"]) $(id).disabled = busy || !frames.length;
  }

  function pause() {
    clearInterval(playing);
    playing = 0;
    $("play").textContent = "Play";
  }

  function play() {
    if (playing) return pause();
    let k = Number($("frame").value) >= frames.length - 1 ? 0 : Number($("frame").value);
    $("play").textContent = "Pause";
    playing = setInterval(() => {
      show(k);
      if (++k >= frames.length) pause();
    }, Math.max(40, 3000 / frames.length));
  }

  function show(k) {
    $("frame").value = String(k);
    const { pixels, step, steps } = frames[k];
    $("frame").setAttribute("aria-valuetext", `step ${step} of ${steps}`);
    [...$("images").children].forEach((canvas, i) => paint(canvas.getContext("2d"), pixels, i));
  }

  function paint(context, pixels, i) {
    const image = context.createImageData(width, height), area = height * width, from = i * channels * area;
    for (let p = 0; p < area; p++) {
      for (let c = 0; c < 3; c++) image.data[4 * p + c] = pixels[from + (channels < 3 ? 0 : c * area) + p];
      image.data[4 * p + 3] = channels === 4 ? pixels[from + 3 * area + p] : 255;
    }
    context.putImageData(image, 0, 0);
  }

  function tiles(num, seed) {
    const columns = Math.ceil(Math.sqrt(num));
    $("images").style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
    $("images").replaceChildren(...Array.from({ length: num }, (_, k) => {
      const canvas = Object.assign(document.createElement("canvas"), { width, height });
      canvas.setAttribute("role", "img");
      canvas.setAttribute("aria-label", `image ${k} of seed ${seed}`);
      return canvas;
    }));
  }

  function draw() {
    if (busy || !$("form").reportValidity()) return;
    const seed = BigInt($("seed").value);
    if (seed >= 2n ** 64n) {
      $("status").textContent = "The seed must be below 2^64.";
      return;
    }
    pause();
    describe();
    frames = [];
    result = null;
    busy = true;
    drawn = Number($("num").value);
    tiles(drawn, seed);
    enable();
    const words = [Number(seed & 0xffffffffn), Number(seed >> 32n)];
    worker.postMessage({
      kind: "draw", sampler: Number($("sampler").value), steps: Number($("steps").value), num: drawn, seed: words,
      conditions: conditions(drawn), guidance: guidance(),
    });
  }

  function end(message) {
    busy = false;
    enable();
    $("status").textContent = message;
    document.dispatchEvent(new Event("drawn"));
  }

  const ANSWERS = {
    ready() {
      busy = false;
      draw();
    },
    frame(data) {
      frames.push(data);
      $("frame").max = String(frames.length - 1);
      show(frames.length - 1);
      $("progress").value = data.step / data.steps;
      $("status").textContent = `Step ${data.step} of ${data.steps}`;
    },
    done({ x, milliseconds }) {
      result = { x, milliseconds };
      end(`${drawn} ${drawn === 1 ? "image" : "images"}, ${milliseconds.toFixed(0)} ms per step`);
    },
    stopped: ({ step }) => end(`Stopped after step ${step}`),
    failed: ({ message }) => end(`This browser can't run the model: ${message}`),
  };

  async function save() {
    const columns = Math.ceil(Math.sqrt(drawn)), all = document.createElement("canvas"), context = all.getContext("2d");
    all.width = columns * (width + 2) + 2;
    all.height = Math.ceil(drawn / columns) * (height + 2) + 2;
    [...$("images").children].forEach((canvas, k) =>
      context.drawImage(canvas, 2 + (k % columns) * (width + 2), 2 + Math.floor(k / columns) * (height + 2)));
    const blob = await new Promise((resolve) => all.toBlob(resolve)), link = document.createElement("a");
    link.href = URL.createObjectURL(blob);
    link.download = `${plan.name}-seed${$("seed").value}.png`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
  }

  fill();
  describe();
  worker.onmessage = ({ data }) => ANSWERS[data.kind](data);
  worker.onerror = (event) => ANSWERS.failed({ message: event.message || "the worker did not start" });
  $("form").addEventListener("submit", (event) => { event.preventDefault(); draw(); });
  $("form").addEventListener("input", describe);
  $("sampler").addEventListener("change", () => { steps(); describe(); });
  $("next").addEventListener("click", () => { $("seed").value = String((BigInt($("seed").value || 0) + 1n) % 2n ** 64n); draw(); });
  $("stop").addEventListener("click", () => worker.postMessage({ kind: "stop" }));
  $("save").addEventListener("click", save);
  $("play").addEventListener("click", play);
  $("frame").addEventListener("input", () => { pause(); show(Number($("frame").value)); });
  worker.postMessage({
    kind: "start", plan, levels, wasm: text("wasm"), runtime: text("runtime"), model: text("model"),
  });
  window.sfumato = { draw, result: () => result, busy: () => busy };  // for programs that drive the page
})();
