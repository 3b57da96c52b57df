/** The page: what is chosen, what may be pressed, what is shown. */
import { Api, Problem } from "/web/api.js";
import { photograph } from "/web/camera.js";
import { Clip, isClip } from "/web/clip.js";
import { CodeBox } from "/web/code.js";
import { Engines } from "/web/engines.js";
import { Erase } from "/web/erase.js";
import { forget, keep, kept } from "/web/keep.js";
import { byId, say, show } from "/web/page.js";
import { drawFaces } from "/web/picker.js";
import { droppable, prepare } from "/web/pictures.js";
import { Preview } from "/web/preview.js";
import { Progress } from "/web/progress.js";
import { watchQueue } from "/web/queue.js";
import { Result } from "/web/result.js";
import { Session } from "/web/session.js";
import { SignIn } from "/web/sign_in.js";
import { follow, join } from "/web/swap.js";
import { Trim } from "/web/trim.js";
import { marked, words } from "/web/words.js";

/** What was chosen. `blob` is uploaded; `seen` is the picture that faces are chosen on: the same, or a frame of a clip
 * (null while there is none, or when this browser can't decode the clip).
 * (`at`: seconds of that frame.)
 * @typedef {{blob: Blob, seen: Blob | null, at: number, clip: Clip | null, width: number, height: number, url: string, found: any, chosen: Set<string>}} Chosen */

class App {
  /** @param {any} config */
  constructor(config) {
    this.config = config;
    this.session = new Session(config.auth);
    this.api = new Api(this.session);
    /** @type {Record<string, Chosen | null>} */
    this.chosen = { source: null, target: null };
    /** @type {AbortController | null} */
    this.running = null;
    this.job = null;
    this.lookAtQueue = () => {};
    this.signIn = new SignIn(this.session, config.auth, () => this.lookAgain());
    this.erase = new Erase(this.api, this.session, () => this.running?.abort());
    this.code = new CodeBox(() => this.now());
    this.result = new Result((job) => this.again(job));
    this.engines = new Engines(this.api, config.engines);
    this.preview = new Preview(/** @type {HTMLVideoElement} */ (byId("preview")));
    this.trim = new Trim(({ looked }) => this.trimmed(looked));
  }

  async start() {
    const { clips, config } = this;
    say("consent-text", config.consent.text);
    say("marks", marked(config.marks));
    say("version", config.version);
    const moving = config.engines.find((/** @type {any} */ one) => one.clips);
    say("engine", config.engine.label + (clips && moving !== config.engines[0] ? `, for clips ${moving.label}` : ""));
    if (clips) {
      say("step-2-text", "The photo or clip to change");
      say("target-hint", "Drop, paste or choose a photo or a clip. If it shows several people, you choose who changes.");
      say("target-choose", "Choose a photo or clip");
      byId("target-file").setAttribute("accept", "image/*,video/mp4,video/quicktime,video/webm,video/x-matroska,.mkv");
    }
    for (const part of ["source", "target"]) this.wire(part);
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files || [])].find((one) => this.wanted("target", one));
      if (file) this.take(this.chosen.source || isClip(file) ? "target" : "source", file);
    });
    byId("consent").addEventListener("change", () => this.hint());
    byId("form").addEventListener("submit", (event) => { event.preventDefault(); this.swap(); });
    byId("cancel").addEventListener("click", () => this.cancel());
    byId("retry").addEventListener("click", () => { show("failure", false); show("before-swap", true); this.hint(); });
    byId("again").addEventListener("click", () => this.reset());
    for (const name of ["online", "offline"]) addEventListener(name, () => show("offline", !navigator.onLine));
    show("offline", !navigator.onLine);
    await this.signIn.account();
    this.hint();
    this.lookAtQueue = watchQueue(this.api, config.links.queue, () => this.kind);
    const job = await kept();
    if (job) this.run(job);
  }

  /** Are clips offered here? */
  get clips() { return Boolean(this.config.limits.video); }

  get kind() { return this.chosen.target?.clip ? "video" : "image"; }

  /** @param {string} part @param {File} file */
  wanted(part, file) { return file.type.startsWith("image/") || (part === "target" && this.clips && isClip(file)); }

  /** @param {string} part */
  wire(part) {
    const input = /** @type {HTMLInputElement} */ (byId(`${part}-file`));
    input.addEventListener("change", () => { if (input.files?.[0]) this.take(part, input.files[0]); input.value = ""; });
    droppable(byId(`${part}-drop`), (file) => this.wanted(part, file), (file) => this.take(part, file));
    byId(`${part}-camera`).addEventListener("click", async () => {
      const blob = await photograph();
      if (blob) this.take(part, blob);
    });
  }

  /** @param {string} part @param {Blob} file */
  async take(part, file) {
    let prepared;
    if (part === "target") say("picker-note", "");
    try {
      prepared = part === "target" && this.clips && isClip(file) ? await this.open(file) : { ...(await prepare(file)), clip: null };
    } catch (error) {
      const { detail, message } = /** @type {any} */ (error);
      say("picker-note", detail ? `${message}: ${detail}` : words(error).join(". "));
      return;
    }
    const old = this.chosen[part];
    if (old) { URL.revokeObjectURL(old.url); old.clip?.close(); }
    const { clip } = prepared;
    const one = { ...prepared, seen: clip ? null : prepared.blob, at: 0, url: "", found: null, chosen: new Set() };
    this.chosen[part] = one;
    if (part === "target" && clip) this.trim.open(clip, this.config.limits.video.max_seconds);
    if (part === "target" && !clip) this.trim.close();
    const area = byId(`${part}-drop`);
    area.querySelector(".empty")?.toggleAttribute("hidden", true);
    area.querySelector(".photo")?.toggleAttribute("hidden", false);
    this.clear();
    show("failure", false);
    show("before-swap", !this.running);
    this.lookAtQueue();
    if (clip) await this.look(one);
    else this.draw(part, one);
    this.hint();
    this.findFaces(part, one);
  }

  /** @param {Blob} file */
  async open(file) {
    const clip = await Clip.open(file, this.config.limits.video);
    return { blob: file, clip, width: clip.width, height: clip.height };
  }

  /** Show what is chosen. @param {string} part @param {Chosen} one */
  draw(part, one) {
    const area = byId(`${part}-drop`);
    const image = /** @type {HTMLImageElement} */ (area.querySelector("img"));
    if (one.url) URL.revokeObjectURL(one.url);
    one.url = one.seen ? URL.createObjectURL(one.seen) : "/web/icon.svg";
    image.src = one.url;
    image.alt = part === "source" ? "Your portrait" : one.clip ? "A frame of your clip" : "Your photo";
    area.querySelector(".faces")?.replaceChildren();
  }

  /** Take the frame of a clip that the person wants to look at. @param {Chosen} one */
  async look(one) {
    const at = this.trim.at;
    const still = await /** @type {Clip} */ (one.clip).still(at);
    if (still === undefined || this.chosen.target !== one || this.trim.at !== at) return;
    one.seen = still && still.blob;
    one.at = still ? still.at : at;
    one.found = null;
    one.chosen.clear();
    this.draw("target", one);
    if (!one.seen) say("picker-note", "This browser can't show this clip. It can be swapped all the same: every face in it changes.");
  }

  /** @param {boolean} looked */
  async trimmed(looked) {
    const one = this.chosen.target;
    if (!one?.clip) return;
    this.hint();
    if (looked && one.seen) { await this.look(one); this.findFaces("target", one); }
  }

  /** Somebody has signed in: what was chosen before can be looked at now. */
  async lookAgain() {
    for (const part of ["source", "target"]) {
      const one = this.chosen[part];
      if (one && !one.found) await this.findFaces(part, one);
    }
  }

  /** Ask which faces there are, once somebody is signed in. @param {string} part @param {Chosen} one */
  async findFaces(part, one) {
    const { seen } = one;
    if (!seen || !(await this.session.who())) return;
    const form = new FormData();
    form.append("target", seen, "picture");
    let found;
    try {
      const answer = await this.api.repeat(this.config.links.faces, { method: "POST", body: form });
      found = await answer.json();
    } catch (error) {
      if (this.chosen[part] === one) say("picker-note", words(error)[0]);
      return;
    }
    if (this.chosen[part] !== one || one.seen !== seen) return;
    one.found = found;
    one.width ||= found.width;
    one.height ||= found.height;
    const several = part === "target";
    for (const face of several ? found.faces : found.faces.slice(0, 1)) one.chosen.add(face.id);
    const layer = /** @type {HTMLElement} */ (byId(`${part}-drop`).querySelector(".faces"));
    drawFaces(layer, found, several, one.chosen, () => this.hint());
    const count = found.faces.length;
    if (one.clip && !count) say("picker-note", "No face on this frame. Faces that come later are swapped, or choose another frame.");
    else if (!count) say("picker-note", `No face was found ${several ? "in the photo" : "in the portrait"}. Choose one where it is seen from the front.`);
    else if (several) say("picker-note", count > 1 ? `${count} faces found. Press a face to keep it as it is.` : "One face found.");
    this.hint();
  }

  get faces() {
    const target = this.chosen.target;
    if (!target?.found || target.chosen.size === target.found.faces.length) return "all";
    return [...target.chosen].join(",");
  }

  /** Form fields about the part of a clip and the frame that faces were chosen on. */
  get part() {
    if (!this.chosen.target?.clip) return {};
    return { ...this.trim.part, ...(this.faces === "all" ? {} : { at: String(this.chosen.target.at) }) };
  }

  /** Say what is still missing; the button explains itself rather than being dead. */
  hint() {
    const missing = this.missing();
    const button = byId("swap");
    if (missing) button.setAttribute("aria-disabled", "true"); else button.removeAttribute("aria-disabled");
    say("hint", missing);
    this.code.draw();
  }

  missing() {
    const { source, target } = this.chosen;
    if (!source) return "Choose the face to use.";
    if (!target) return this.clips ? "Choose the photo or clip to change." : "Choose the photo to change.";
    if (!target.clip && target.found && !target.found.faces.length) return "The photo needs a face to change.";
    if (source.found && !source.found.faces.length) return "The portrait needs a face.";
    if (target.found?.faces.length && !target.chosen.size) return "Choose at least one face to change.";
    if (target.clip && !this.trim.frames) return "Choose a part of the clip that has frames.";
    if (target.clip && this.trim.frames > this.config.limits.video.max_frames) {
      return `Choose a shorter part: at most ${this.config.limits.video.max_frames} frames.`;
    }
    if (!(/** @type {HTMLInputElement} */ (byId("consent")).checked)) return "Agree to the statement above.";
    return "";
  }

  async swap() {
    if (this.missing() || this.running) { this.hint(); return; }
    if (!(await this.session.who())) { this.signIn.open(() => this.swap()); return; }
    const { source, target } = this.chosen;
    if (!source || !target) return;
    if (!target.width) { say("hint", "Looking at the photo …"); await this.findFaces("target", target); }
    if (!target.width || this.missing()) { this.hint(); return; }
    const [sourceFace] = source.chosen;
    this.run({
      key: crypto.randomUUID(), kind: this.kind, source: source.blob, target: target.blob, width: target.width, height: target.height,
      frames: target.clip ? this.trim.frames : 1, faces: this.faces, part: this.part, sourceFace,
      // Only an engine that begins with noise has another try, and none of those swaps clips.
      consent: this.config.consent.id, ticket: null, seed: this.kind === "image" && this.config.engine.seeded ? 0 : undefined,
    });
  }

  /** What has been swapped, once more: a swap of its own, with a place in line of its own. @param {any} job */
  again(job) {
    if (!this.running) this.run({ ...job, key: crypto.randomUUID(), ticket: null });
  }

  /** @param {any} job */
  async run(job) {
    this.running = new AbortController();
    this.job = job;
    const progress = new Progress(job.kind);
    this.clear();
    for (const id of ["before-swap", "failure", "preview"]) show(id, false);
    show("waiting", true);
    try {
      await keep(job);
      if (!job.ticket) {
        job.ticket = await join(this.api, job);
        await keep(job);
      }
      const result = await follow(this.api, job, (what, value) => this.tell(progress, what, value), this.running.signal);
      this.result.show(job, result);
      this.engines.offer(job, result);
    } catch (error) {
      this.fail(/** @type {any} */ (error));
    } finally {
      await forget();
      this.running = null;
      this.job = null;
      this.preview.close();
      show("waiting", false);
    }
  }

  /** @param {Progress} progress @param {string} what @param {any} value */
  tell(progress, what, value) {
    if (what === "ticket") progress.ticket(value);
    else if (what === "upload") progress.upload(value);
    else if (what === "begin") show("preview", this.preview.begin(value));
    else if (what === "part") this.preview.push(value);
    else this.preview.end();
  }

  /** @param {any} error */
  fail(error) {
    if (error?.name === "AbortError" || error?.code === "canceled") {
      show("before-swap", true);
      say("hint", "Canceled.");
      return;
    }
    const [title, text] = words(error);
    say("failure-title", title);
    say("failure-text", text);
    show("failure", true);
    if (error instanceof Problem && error.status === 401) this.signIn.open(() => this.swap());
  }

  async cancel() {
    const ticket = this.job?.ticket;
    this.running?.abort();
    if (ticket) await this.api.repeat(ticket.links.cancel, { method: "DELETE" }).catch(() => null);
  }

  reset() {
    this.clear();
    show("before-swap", true);
    this.hint();
    byId("source-file").focus();
  }

  /** Forget what was shown. */
  clear() {
    this.result.clear();
    this.engines.clear();
  }

  /** What the code box shows. */
  now() {
    const { source, target } = this.chosen;
    const bytes = (source?.blob.size || 200000) + (target?.blob.size || 210000);
    return {
      kind: this.kind, bytes, width: target?.width || 1200, height: target?.height || 900,
      frames: target?.clip ? this.trim.frames : 1, faces: this.faces, part: this.part, consent: this.config.consent.id,
    };
  }
}

const answer = await fetch("/v1/config");
await new App(await answer.json()).start();
document.documentElement.dataset.ready = "yes";
