/** A photo from the camera, taken in a dialog. The camera is on only while the dialog is open. */
import { byId, say } from "/web/page.js";

/** @returns {Promise<Blob | null>} */
export async function photograph() {
  const dialog = /** @type {HTMLDialogElement} */ (byId("camera-dialog"));
  const video = /** @type {HTMLVideoElement} */ (byId("camera"));
  say("camera-error", "");
  dialog.showModal();
  let stream = null;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "user", width: { ideal: 1920 } } });
    video.srcObject = stream;
    await video.play();
  } catch {
    say("camera-error", "The camera can't be used. Allow it in the browser, or choose a file.");
  }
  const blob = await new Promise((done) => {
    byId("camera-take").onclick = () => {
      if (!video.videoWidth) return;
      const canvas = document.createElement("canvas");
      canvas.width = video.videoWidth;
      canvas.height = video.videoHeight;
      canvas.getContext("2d")?.drawImage(video, 0, 0);
      canvas.toBlob(done, "image/jpeg", 0.95);
    };
    byId("camera-close").onclick = () => done(null);
    dialog.oncancel = () => done(null);
  });
  for (const track of stream?.getTracks() || []) track.stop();
  video.srcObject = null;
  dialog.close();
  return blob;
}
