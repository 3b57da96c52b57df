/** The page: what is chosen, what may be pressed, what is shown. */
import { Api, Problem } from "/web/api.js";
import { photograph } from "/web/camera.js";
import { code } from "/web/code.js";
import { forget, keep, kept } from "/web/keep.js";
import { byId, duration, range, say, show } from "/web/page.js";
import { drawFaces } from "/web/picker.js";
import { droppable, prepare } from "/web/pictures.js";
import { Session } from "/web/session.js";
import { follow, join } from "/web/swap.js";
import { words } from "/web/words.js";

/** @typedef {{blob: Blob, width: number, height: number, url: string, found: any, chosen: Set<string>}} Picture */

class App {
  /** @param {any} config */
  constructor(config) {
    this.config = config;
    this.session = new Session(config.auth);
    this.api = new Api(this.session);
    /** @type {Record<string, Picture | null>} */
    this.pictures = { source: null, target: null };
    this.language = "curl";
    /** @type {AbortController | null} */
    this.running = null;
    this.job = null;
    this.promised = 0;
    this.lastPart = "target";
  }

  async start() {
    say("consent-text", this.config.consent.text);
    say("version", this.config.version);
    say("engine", this.config.engine.label);
    for (const part of ["source", "target"]) this.wire(part);
    document.addEventListener("paste", (event) => {
      const file = [...(event.clipboardData?.files || [])].find((one) => one.type.startsWith("image/"));
      if (file) this.take(this.pictures.source ? "target" : "source", file);
    });
    byId("consent").addEventListener("change", () => this.hint());
    byId("form").addEventListener("submit", (event) => { event.preventDefault(); this.swap(); });
    byId("cancel").addEventListener("click", () => this.cancel());
    byId("retry").addEventListener("click", () => { show("failure", false); show("before-swap", true); this.hint(); });
    byId("again").addEventListener("click", () => this.reset());
    byId("slider").addEventListener("input", () => this.compare());
    this.wireSignIn();
    this.wireCode();
    for (const name of ["online", "offline"]) addEventListener(name, () => show("offline", !navigator.onLine));
    show("offline", !navigator.onLine);
    await this.account();
    this.hint();
    this.watchQueue();
    const job = await kept();
    if (job) this.run(job);
  }

  /** @param {string} part */
  wire(part) {
    const input = /** @type {HTMLInputElement} */ (byId(`${part}-file`));
    input.addEventListener("change", () => { if (input.files?.[0]) this.take(part, input.files[0]); input.value = ""; });
    droppable(byId(`${part}-drop`), (file) => this.take(part, file));
    byId(`${part}-camera`).addEventListener("click", async () => {
      const blob = await photograph();
      if (blob) this.take(part, blob);
    });
  }

  /** @param {string} part @param {Blob} file */
  async take(part, file) {
    const prepared = await prepare(file);
    const old = this.pictures[part];
    if (old) URL.revokeObjectURL(old.url);
    const picture = { ...prepared, url: URL.createObjectURL(prepared.blob), found: null, chosen: new Set() };
    this.pictures[part] = picture;
    const area = byId(`${part}-drop`);
    const image = /** @type {HTMLImageElement} */ (area.querySelector("img"));
    image.src = picture.url;
    area.querySelector(".empty")?.toggleAttribute("hidden", true);
    area.querySelector(".photo")?.toggleAttribute("hidden", false);
    area.querySelector(".faces")?.replaceChildren();
    show("done", false);
    show("failure", false);
    show("before-swap", !this.running);
    this.hint();
    this.findFaces(part, picture);
  }

  /** Ask which faces there are, once somebody is signed in. @param {string} part @param {Picture} picture */
  async findFaces(part, picture) {
    if (!(await this.session.who())) return;
    const form = new FormData();
    form.append("target", picture.blob, "picture");
    try {
      const answer = await this.api.repeat(this.config.links.faces, { method: "POST", body: form });
      picture.found = await answer.json();
    } catch (error) {
      if (this.pictures[part] === picture) this.note(part, words(error)[0]);
      return;
    }
    if (this.pictures[part] !== picture) return;
    picture.width ||= picture.found.width;
    picture.height ||= picture.found.height;
    const several = part === "target";
    for (const face of several ? picture.found.faces : picture.found.faces.slice(0, 1)) picture.chosen.add(face.id);
    const layer = /** @type {HTMLElement} */ (byId(`${part}-drop`).querySelector(".faces"));
    drawFaces(layer, picture.found, several, picture.chosen, () => { this.hint(); this.drawCode(); });
    const count = picture.found.faces.length;
    if (!count) this.note(part, `No face was found ${several ? "in the photo" : "in the portrait"}. Choose one where it is seen from the front.`);
    else if (several && count > 1) this.note(part, `${count} faces found. Press a face to keep it as it is.`);
    else if (several) this.note(part, "One face found.");
    this.hint();
  }

  /** @param {string} _part @param {string} text */
  note(_part, text) { say("picker-note", text); }

  get faces() {
    const target = this.pictures.target;
    if (!target?.found || target.chosen.size === target.found.faces.length) return "all";
    return [...target.chosen].join(",");
  }

  /** Say what is still missing; the button explains itself rather than being dead. */
  hint() {
    const missing = this.missing();
    const button = byId("swap");
    if (missing) button.setAttribute("aria-disabled", "true"); else button.removeAttribute("aria-disabled");
    say("hint", missing);
    this.drawCode();
  }

  missing() {
    const { source, target } = this.pictures;
    if (!source) return "Choose the face to use.";
    if (!target) return "Choose the photo to change.";
    if (target.found && !target.found.faces.length) return "The photo needs a face to change.";
    if (source.found && !source.found.faces.length) return "The portrait needs a face.";
    if (target.found && !target.chosen.size) return "Choose at least one face to change.";
    if (!(/** @type {HTMLInputElement} */ (byId("consent")).checked)) return "Agree to the statement above.";
    return "";
  }

  async swap() {
    if (this.missing() || this.running) { this.hint(); return; }
    if (!(await this.session.who())) { this.openSignIn(() => this.swap()); return; }
    const { source, target } = this.pictures;
    if (!source || !target) return;
    if (!target.width) { say("hint", "Looking at the photo …"); await this.findFaces("target", target); }
    if (!target.width || this.missing()) { this.hint(); return; }
    const [sourceFace] = source.chosen;
    this.run({
      key: crypto.randomUUID(), source: source.blob, target: target.blob, width: target.width, height: target.height,
      faces: this.faces, sourceFace, consent: this.config.consent.id, ticket: null,
    });
  }

  /** @param {any} job */
  async run(job) {
    this.running = new AbortController();
    this.job = job;
    this.promised = 0;
    for (const id of ["before-swap", "failure", "done"]) show(id, false);
    show("waiting", true);
    say("place", "Taking a place in line …");
    say("eta", "");
    try {
      await keep(job);
      if (!job.ticket) {
        job.ticket = await join(this.api, job);
        await keep(job);
      }
      const result = await follow(this.api, job, (what, value) => this.tell(what, value), this.running.signal);
      this.finish(job, result);
    } catch (error) {
      this.fail(/** @type {any} */ (error));
    } finally {
      await forget();
      this.running = null;
      this.job = null;
      show("waiting", false);
    }
  }

  /** @param {string} what @param {any} value */
  tell(what, value) {
    const bar = /** @type {HTMLProgressElement} */ (byId("progress"));
    if (what === "upload") {
      bar.value = value * 0.4;
      say("place", value < 1 ? "Your turn: uploading" : "Swapping");
      return;
    }
    const ticket = value;
    if (ticket.state === "waiting") {
      bar.removeAttribute("value");
      say("place", ticket.position === 1 ? "You are next" : `Place ${ticket.position} in line`);
      say("eta", ticket.eta ? this.estimate(ticket.eta) : "No GPU is ready at the moment. Your place is kept.");
    } else if (ticket.state === "parked") {
      say("place", "Your place is kept");
      say("eta", "The connection was interrupted. We go on where we were.");
    } else if (ticket.state === "running") {
      const steps = ["decode", "detect", "swap", "encode"];
      const stage = ticket.progress ? steps.indexOf(ticket.progress.stage) : 0;
      bar.value = 0.4 + 0.15 * Math.max(0, stage);
      say("place", "Swapping");
      say("eta", "");
    }
  }

  /** The estimate, honest about getting worse. @param {{p50: number, p90: number}} eta */
  estimate(eta) {
    const end = Date.now() / 1000 + eta.p90;
    const later = this.promised && end > this.promised + Math.max(3, 0.2 * eta.p90);
    if (!this.promised || end < this.promised) this.promised = end;
    if (!later) return `Your turn in ${range(eta)}.`;
    return `Busier than expected: your turn in ${range(eta)}.`;
  }

  /** @param {any} job @param {{blob: Blob, faces: number}} result */
  finish(job, result) {
    const [after, before] = [byId("after"), byId("before")].map((one) => /** @type {HTMLImageElement} */ (one));
    for (const image of [after, before]) if (image.src) URL.revokeObjectURL(image.src);
    after.src = URL.createObjectURL(result.blob);
    before.src = URL.createObjectURL(job.target);
    const link = /** @type {HTMLAnchorElement} */ (byId("download"));
    link.href = after.src;
    link.download = `nanoswap.${result.blob.type.split("/")[1].replace("jpeg", "jpg")}`;
    const faces = result.faces === 1 ? "1 face" : `${result.faces} faces`;
    say("facts", `${faces} changed · ${Math.max(1, Math.round(result.blob.size / 1024))} KB · nothing is kept`);
    this.compare();
    show("done", true);
    byId("slider").focus({ preventScroll: true });
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
    if (error instanceof Problem && error.status === 401) this.openSignIn(() => this.swap());
  }

  async cancel() {
    const ticket = this.job?.ticket;
    this.running?.abort();
    if (ticket) await this.api.repeat(ticket.links.cancel, { method: "DELETE" }).catch(() => null);
  }

  reset() {
    for (const id of ["after", "before"]) {
      const image = /** @type {HTMLImageElement} */ (byId(id));
      URL.revokeObjectURL(image.src);
      image.removeAttribute("src");
    }
    show("done", false);
    show("before-swap", true);
    this.hint();
    byId("source-file").focus();
  }

  compare() {
    const share = Number(/** @type {HTMLInputElement} */ (byId("slider")).value);
    byId("before").style.setProperty("clip-path", `inset(0 ${100 - share}% 0 0)`);
  }

  async account() {
    const who = await this.session.who();
    show("sign-in", !who);
    show("sign-out", Boolean(who));
    show("who", Boolean(who));
    say("who", who || "");
  }

  wireSignIn() {
    const dialog = /** @type {HTMLDialogElement} */ (byId("sign-in-dialog"));
    const field = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id));
    const { demo } = this.config.auth;
    show("demo", Boolean(demo));
    byId("sign-in").addEventListener("click", () => this.openSignIn(() => {}));
    byId("sign-in-close").addEventListener("click", () => dialog.close());
    byId("sign-out").addEventListener("click", async () => { await this.session.signOut(); await this.account(); });
    byId("demo-sign-in").addEventListener("click", () => this.signIn(demo.email, demo.password));
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.signIn(field("email").value, field("password").value);
    });
  }

  /** @param {() => void} then */
  openSignIn(then) {
    this.afterSignIn = then;
    say("sign-in-error", "");
    const dialog = /** @type {HTMLDialogElement} */ (byId("sign-in-dialog"));
    if (!dialog.open) dialog.showModal();
  }

  /** @param {string} email @param {string} password */
  async signIn(email, password) {
    try {
      await this.session.signIn(email, password);
    } catch (error) {
      say("sign-in-error", words(error)[0]);
      return;
    }
    /** @type {HTMLDialogElement} */ (byId("sign-in-dialog")).close();
    await this.account();
    for (const part of ["source", "target"]) {
      const picture = this.pictures[part];
      if (picture && !picture.found) await this.findFaces(part, picture);
    }
    this.afterSignIn?.();
  }

  wireCode() {
    const tabs = ["curl", "python"];
    for (const name of tabs) {
      const tab = byId(`tab-${name}`);
      const choose = () => {
        this.language = name;
        for (const other of tabs) {
          byId(`tab-${other}`).setAttribute("aria-selected", String(other === name));
          byId(`tab-${other}`).tabIndex = other === name ? 0 : -1;
        }
        byId("code").setAttribute("aria-labelledby", `tab-${name}`);
        this.drawCode();
      };
      tab.addEventListener("click", choose);
      tab.addEventListener("keydown", (event) => {
        if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
        const other = byId(`tab-${tabs[1 - tabs.indexOf(name)]}`);
        other.click();
        other.focus();
      });
    }
    byId("copy").addEventListener("click", async () => {
      await navigator.clipboard.writeText(byId("code").textContent || "");
      say("copy", "Copied");
      setTimeout(() => say("copy", "Copy"), 2000);
    });
  }

  drawCode() {
    const { source, target } = this.pictures;
    const bytes = (source?.blob.size || 200000) + (target?.blob.size || 210000);
    const now = { bytes, width: target?.width || 1200, height: target?.height || 900, faces: this.faces };
    say("code", code(this.language, now));
  }

  async watchQueue() {
    const dot = byId("queue");
    const look = async () => {
      try {
        const { image } = await this.api.open(this.config.links.queue);
        dot.className = `pulse ${image.workers ? "open" : "closed"}`;
        const gpus = image.workers === 1 ? "1 GPU process ready" : `${image.workers} GPU processes ready`;
        const wait = image.eta && image.eta.p90 >= 1.5 ? `about ${duration(image.eta.p90)} wait` : "no wait";
        say("queue", image.workers ? `${gpus} · ${image.waiting} in line · ${wait}` : "Closed: no GPU is ready right now");
      } catch {
        dot.className = "pulse closed";
        say("queue", "The service can't be reached right now");
      }
    };
    for (;;) {
      if (!document.hidden) await look();
      await new Promise((done) => setTimeout(done, 5000));
    }
  }
}

const answer = await fetch("/v1/config");
await new App(await answer.json()).start();
document.documentElement.dataset.ready = "yes";
