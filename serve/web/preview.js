/** A clip that plays while it is still being made, through Media Source Extensions. What is shown is not what is
 * kept: the result is collected elsewhere, so whatever goes wrong here costs the preview and nothing else. */

// Telephones of Apple's have only the managed kind, and want AirPlay switched off for it.
const Source = globalThis.MediaSource || /** @type {any} */ (globalThis).ManagedMediaSource;
/** Seconds behind the picture that is shown which stay when room is needed. */
const BEHIND = 2;

export class Preview {
  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.video = video;
    this.stop = new AbortController();
    /** @type {Uint8Array[]} */
    this.queue = [];
  }

  /** Another clip begins. Can this browser show it? @param {string} type with its codecs */
  begin(type) {
    this.close();
    if (!Source?.isTypeSupported(type)) return false;
    this.stop = new AbortController();
    this.whole = this.full = this.begun = false;
    this.buffer = /** @type {SourceBuffer | null} */ (null);
    const source = this.source = new Source();
    const until = { signal: this.stop.signal };
    const url = URL.createObjectURL(source);
    source.addEventListener("sourceopen", () => { URL.revokeObjectURL(url); this.open(type); }, { ...until, once: true });
    source.addEventListener("startstreaming", () => this.pump(), until);
    this.video.addEventListener("timeupdate", () => { if (this.full) this.pump(); }, until);
    this.video.addEventListener("error", () => this.fail(), until);
    this.video.disableRemotePlayback = true;
    this.video.muted = true;
    this.video.src = url;
    return true;
  }

  /** @param {string} type */
  open(type) {
    const until = { signal: this.stop.signal };
    try {
      this.buffer = /** @type {SourceBuffer} */ (this.source.addSourceBuffer(type));
    } catch {
      this.fail();
      return;
    }
    this.buffer.addEventListener("updateend", () => this.updated(), until);
    this.buffer.addEventListener("error", () => this.fail(), until);
    this.pump();
  }

  /** @param {Uint8Array} part */
  push(part) {
    if (!this.source) return;
    this.queue.push(part);
    this.pump();
  }

  /** Everything has been given. */
  end() {
    this.whole = true;
    this.pump();
  }

  updated() {
    const { video, buffer } = this;
    if (buffer?.buffered.length) {
      // A clip may begin a little late, and a player would wait there for ever.
      if (video.currentTime < buffer.buffered.start(0)) video.currentTime = buffer.buffered.start(0);
      if (!this.begun && !matchMedia("(prefers-reduced-motion: reduce)").matches) video.play().catch(() => {});
      this.begun = true;
    }
    this.pump();
  }

  /** Append what can be appended now. */
  pump() {
    const { buffer, source, queue } = this;
    if (!buffer || source?.readyState !== "open" || buffer.updating || source.streaming === false) return;
    if (!queue.length) {
      if (this.whole) source.endOfStream();
      return;
    }
    try {
      buffer.appendBuffer(/** @type {BufferSource} */ (queue[0]));
      queue.shift();
      this.full = false;
    } catch (error) {
      if (/** @type {any} */ (error)?.name === "QuotaExceededError") this.makeRoom(buffer); else this.fail();
    }
  }

  /** Forget what has been seen; where there is nothing, wait until there is. @param {SourceBuffer} buffer */
  makeRoom(buffer) {
    this.full = true;
    const seen = this.video.currentTime - BEHIND;
    if (buffer.buffered.length && seen > buffer.buffered.start(0) + 0.5) buffer.remove(0, seen);
  }

  fail() {
    this.close();
    this.video.hidden = true;
  }

  close() {
    this.stop.abort();
    this.queue = [];
    if (!this.source) return;
    this.source = null;
    this.video.pause();
    this.video.removeAttribute("src");
    this.video.load();
  }
}
