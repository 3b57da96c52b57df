/** Single frames of a clip, as far as this browser can show it. */

const LONGEST_SIDE = 1920;
const QUALITY = 0.92;
/** A browser that hasn't shown a frame by then won't. */
const PATIENCE = 8000;

/** An upright frame and the moment it is from. @typedef {{blob: Blob, width: number, height: number, at: number}} Still */

export class Poster {
  /** @param {string} url of the clip @param {Float64Array} times of its frames, sorted */
  constructor(url, times) {
    this.times = times;
    this.video = document.createElement("video");
    Object.assign(this.video, { muted: true, playsInline: true, preload: "auto", src: url });
    this.asked = 0;
    this.busy = this.loaded();
    this.busy.catch(() => {});
  }

  async loaded() {
    await happened(this.video, "loadeddata");
    // A browser that knows only the sound of a clip shows no picture and says nothing.
    if (!this.video.videoWidth) throw new Error("no picture");
  }

  /** The frame that is shown at a moment; null when another one was asked for meanwhile. Rejects, and from then on
   * always, when the browser can't show the clip. @param {number} seconds @returns {Promise<Still | null>} */
  at(seconds) {
    const mine = ++this.asked;
    const turn = this.busy.then(() => (mine === this.asked ? this.draw(seconds) : null));
    this.busy = turn.then(() => {});
    this.busy.catch(() => {});
    return turn;
  }

  /** @param {number} seconds @returns {Promise<Still>} */
  async draw(seconds) {
    const index = Math.max(0, before(this.times, seconds + 1e-6) - 1);
    const [shown, next] = [this.times[index], this.times[index + 1] ?? this.times[index] + 0.02];
    // The middle of the frame's time: no rounding of the browser's makes it the frame before.
    const moment = shown + Math.min(0.02, (next - shown) / 2);
    if (this.video.currentTime !== moment) {
      const sought = happened(this.video, "seeked");
      this.video.currentTime = moment;
      await sought;
    }
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, LONGEST_SIDE / Math.max(videoWidth, videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(videoWidth * scale);
    canvas.height = Math.round(videoHeight * scale);
    canvas.getContext("2d")?.drawImage(this.video, 0, 0, canvas.width, canvas.height);
    const blob = await new Promise((done) => canvas.toBlob(done, "image/jpeg", QUALITY));
    if (!blob) throw new Error("no picture");
    return { blob, width: canvas.width, height: canvas.height, at: Math.max(0, shown) };
  }

  close() {
    this.asked++;
    this.video.removeAttribute("src");
    this.video.load();
  }
}

/** How many of sorted times are earlier than a moment. @param {Float64Array} times @param {number} moment */
export function before(times, moment) {
  let [low, high] = [0, times.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (times[middle] < moment) low = middle + 1; else high = middle;
  }
  return low;
}

/** @param {HTMLVideoElement} video @param {string} name @returns {Promise<void>} */
function happened(video, name) {
  return new Promise((done, fail) => {
    const late = setTimeout(() => settle(new Error("no picture in time")), PATIENCE);
    const settle = (/** @type {unknown} */ wrong) => {
      clearTimeout(late);
      video.removeEventListener(name, well);
      video.removeEventListener("error", badly);
      if (wrong) fail(wrong); else done();
    };
    const well = () => settle(null);
    const badly = () => settle(new Error("no picture"));
    video.addEventListener(name, well);
    video.addEventListener("error", badly);
  });
}
