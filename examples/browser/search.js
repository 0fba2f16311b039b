// Embeds pictures with model.tflite in this browser, and lists them by their cosine to one of them. Nothing leaves this machine.
import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

const [state, gallery, query, results] = ["state", "gallery", "query", "results"].map((id) => document.getElementById(id));
let model;
let pictures = [];

/** The pixels of an image file as the model takes them: upright, on white, the centered part, red, green, blue from 0 to 255. */
async function pixels(file, { shape, dtype }) {
  const [, height, width] = shape;
  const bitmap = await createImageBitmap(file); // upright by its EXIF block
  const pen = new OffscreenCanvas(width, height).getContext("2d", { willReadFrequently: true });
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.imageSmoothingQuality = "high";
  const scale = Math.max(width / bitmap.width, height / bitmap.height);
  const [w, h] = [width / scale, height / scale];
  pen.drawImage(bitmap, (bitmap.width - w) / 2, (bitmap.height - h) / 2, w, h, 0, 0, width, height);
  bitmap.close();
  const rgba = pen.getImageData(0, 0, width, height).data;
  const values = new (dtype === "uint8" ? Uint8Array : Float32Array)(3 * width * height);
  for (let n = 0; n < width * height; n++) {
    values.set(rgba.subarray(4 * n, 4 * n + 3), 3 * n);
  }
  return new Tensor(values, [1, height, width, 3]);
}

/** The embedding of an image file, a Float32Array of length one. */
export async function embed(file) {
  const input = await pixels(file, model.getInputDetails()[0]);
  const [output] = await model.run([input]);
  const embedding = Float32Array.from(await output.data());
  input.delete();
  output.delete();
  return embedding;
}

const cosine = (a, b) => a.reduce((sum, value, n) => sum + value * b[n], 0);

function show(found) {
  results.replaceChildren(
    ...found.map(({ file, score }) => {
      const item = document.createElement("li");
      const picture = document.createElement("img");
      picture.src = URL.createObjectURL(file);
      picture.alt = "";
      picture.onload = () => URL.revokeObjectURL(picture.src);
      item.append(picture, `${file.name} ${score.toFixed(4)}`);
      return item;
    }),
  );
}

/** Runs one step, and says what went wrong in place of leaving the page silent. */
function step(action) {
  return async (event) => {
    try {
      await action(event);
    } catch (error) {
      state.textContent = `This did not work: ${error.message ?? error}`;
    }
  };
}

gallery.onchange = step(async () => {
  pictures = [];
  for (const file of gallery.files) {
    pictures.push({ file, embedding: await embed(file) });
    state.textContent = `${pictures.length} of ${gallery.files.length} pictures are embedded.`;
  }
  query.disabled = false;
});

query.onchange = step(async () => {
  const began = performance.now();
  const asked = await embed(query.files[0]);
  const time = performance.now() - began;
  const found = pictures.map(({ file, embedding }) => ({ file, score: cosine(asked, embedding) }));
  show(found.sort((a, b) => b.score - a.score));
  state.textContent = `The query was embedded in ${time.toFixed(0)} ms; these are the nearest of ${found.length}.`;
});

step(async () => {
  await loadLiteRt("node_modules/@litertjs/core/wasm/");
  model = await loadAndCompile("model.tflite", { accelerator: "wasm" });
  state.textContent = "The model is ready.";
  gallery.disabled = false;
})();
