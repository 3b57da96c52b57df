/** The result: before and after of a picture, a player for a clip, and what there is to say about either. */
import { byId, say, show } from "/web/page.js";

export class Result {
  /** @param {(job: any) => void} again swaps such a job once more */
  constructor(again) {
    /** @type {any} */
    this.job = null;
    /** @type {string[]} */
    this.urls = [];
    this.after = /** @type {HTMLImageElement} */ (byId("after"));
    this.before = /** @type {HTMLImageElement} */ (byId("before"));
    this.slider = /** @type {HTMLInputElement} */ (byId("slider"));
    this.player = new Player();
    this.slider.addEventListener("input", () => this.compare());
    byId("another").addEventListener("click", () => again({ ...this.job, seed: this.job.seed + 1 }));
  }

  /** @param {any} job @param {{blob: Blob, faces: number, frames: number}} result */
  show(job, result) {
    this.clear();
    this.job = job;
    const clip = job.kind === "video";
    const [after, before] = this.urls = [result.blob, job.target].map((blob) => URL.createObjectURL(blob));
    for (const id of ["compare", "compare-slider"]) show(id, !clip);
    show("compare-clip", clip);
    if (clip) this.player.show(after, before, job.part);
    else [this.after.src, this.before.src] = [after, before];
    const link = /** @type {HTMLAnchorElement} */ (byId("download"));
    link.href = after;
    link.download = `nanoswap.${result.blob.type.split(";")[0].split("/")[1].replace("jpeg", "jpg")}`;
    const [count, one] = clip ? [result.frames, "frame"] : [result.faces, "face"];
    const seed = job.seed === undefined ? "" : ` · seed ${job.seed}`;
    say("facts", `${count} ${one}${count === 1 ? "" : "s"}${clip ? "" : " changed"} · ${size(result.blob.size)}${seed} · nothing is kept`);
    show("another", job.seed !== undefined);
    if (job.seed !== undefined) say("another", `Another try (seed ${job.seed + 1})`);
    say("made-by", `This ${clip ? "clip" : "picture"} is AI-generated. Say so wherever you show it.`);
    this.compare();
    show("done", true);
    (clip ? byId("clip-after") : this.slider).focus({ preventScroll: true });
  }

  compare() {
    this.before.style.setProperty("clip-path", `inset(0 ${100 - Number(this.slider.value)}% 0 0)`);
  }

  clear() {
    show("done", false);
    this.job = null;
    for (const image of [this.after, this.before]) image.removeAttribute("src");
    this.player.clear();
    for (const url of this.urls) URL.revokeObjectURL(url);
    this.urls = [];
  }
}

/** The swapped clip, and the one before it at the same moment. */
class Player {
  constructor() {
    this.after = /** @type {HTMLVideoElement} */ (byId("clip-after"));
    this.before = /** @type {HTMLVideoElement} */ (byId("clip-before"));
    this.start = 0;
    this.end = Infinity;
    byId("show-before").addEventListener("click", () => this.turn(this.before.hidden));
    // A browser that can't show the original has nothing to compare with.
    this.before.addEventListener("loadedmetadata", () => show("show-before", this.before.videoWidth > 0));
    this.before.addEventListener("error", () => show("show-before", false));
    this.before.addEventListener("timeupdate", () => { if (this.before.currentTime >= this.end) this.before.pause(); });
  }

  /** @param {string} after @param {string} before @param {{start?: string, end?: string}} part */
  show(after, before, part) {
    this.start = Number(part?.start || 0);
    this.end = Number(part?.end || Infinity);
    show("show-before", false);
    [this.after.src, this.before.src] = [after, before];
  }

  /** @param {boolean} back to the original? */
  turn(back) {
    const [shown, other, moved] = back ? [this.before, this.after, this.start] : [this.after, this.before, -this.start];
    byId("show-before").setAttribute("aria-pressed", String(back));
    const playing = !other.paused && !other.ended;
    shown.currentTime = Math.max(0, other.currentTime + moved);
    [shown.muted, shown.volume] = [other.muted, other.volume];
    other.pause();
    [shown.hidden, other.hidden] = [false, true];
    if (playing) shown.play().catch(() => {});
  }

  clear() {
    for (const video of [this.after, this.before]) {
      if (!video.hasAttribute("src")) continue;
      video.pause();
      video.removeAttribute("src");
      video.load();
    }
    [this.after.hidden, this.before.hidden] = [false, true];
    byId("show-before").setAttribute("aria-pressed", "false");
  }
}

/** @param {number} bytes */
const size = (bytes) => (bytes < 2 ** 20 ? `${Math.max(1, Math.round(bytes / 1024))} KB` : `${(bytes / 2 ** 20).toFixed(1)} MB`);
