/** Pictures on their way in: made smaller and stripped of everything but pixels before anything leaves the browser. */

const LONGEST_SIDE = 4096;
const QUALITY = 0.92;

/** Draw a picture anew, upright, at most LONGEST_SIDE wide or high. What the browser can't read is kept as it is.
 * @param {Blob} file @returns {Promise<{blob: Blob, width: number, height: number}>} */
export async function prepare(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    // HEIC, for one: the service reads it, strips it there, and says its size when it looks for faces.
    return { blob: file, width: 0, height: 0 };
  }
  const scale = Math.min(1, LONGEST_SIDE / Math.max(bitmap.width, bitmap.height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.round(bitmap.width * scale);
  canvas.height = Math.round(bitmap.height * scale);
  const context = canvas.getContext("2d");
  if (!context) throw new Error("no canvas");
  context.fillStyle = "#ffffff";
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
  if (!blob) throw new Error("no picture");
  return { blob, width: canvas.width, height: canvas.height };
}

/** Let one area take dropped files. @param {HTMLElement} area @param {(file: File) => boolean} wanted
 * @param {(file: File) => void} take */
export function droppable(area, wanted, take) {
  for (const name of ["dragenter", "dragover"]) {
    area.addEventListener(name, (event) => { event.preventDefault(); area.classList.add("over"); });
  }
  for (const name of ["dragleave", "drop"]) {
    area.addEventListener(name, (event) => { event.preventDefault(); area.classList.remove("over"); });
  }
  area.addEventListener("drop", (event) => {
    const file = [...(event.dataTransfer?.files || [])].find(wanted);
    if (file) take(file);
  });
}
