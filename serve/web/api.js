/** The service's API: typed failures, safe retries, fresh sessions. */

export class Problem extends Error {
  /** @param {number} status @param {any} body */
  constructor(status, body) {
    super(body.title || "Something went wrong");
    this.status = status;
    this.code = body.code || "unavailable";
    this.detail = body.detail || "";
    this.part = body.part || "";
    this.retryAfter = body.retry_after || 0;
  }
}

const AGAIN = new Set([408, 429, 500, 502, 503, 504]);
export const pause = (/** @type {number} */ seconds) => new Promise((done) => setTimeout(done, seconds * 1000));
export const jitter = (/** @type {number} */ attempt) => Math.random() * Math.min(10, 0.3 * 2 ** attempt);

export class Api {
  /** @param {{token: () => Promise<string>}} session */
  constructor(session) { this.session = session; }

  /** Read a public document. @param {string} path */
  async open(path) {
    const answer = await fetch(path, { cache: "no-store" });
    if (!answer.ok) throw await problem(answer);
    return answer.json();
  }

  /** A signed request. @param {string} path @param {RequestInit} request */
  async send(path, request = {}) {
    const headers = new Headers(request.headers);
    headers.set("Authorization", `Bearer ${await this.session.token()}`);
    return fetch(path, { ...request, headers, cache: "no-store" });
  }

  /** A request that may be repeated, and is. @param {string} path @param {RequestInit} request */
  async repeat(path, request = {}) {
    for (let attempt = 1; ; attempt++) {
      try {
        const answer = await this.send(path, request);
        if (answer.ok) return answer;
        const failure = await problem(answer);
        if (!AGAIN.has(answer.status) || failure.retryAfter > 10 || attempt === 5) throw failure;
        await pause(failure.retryAfter || jitter(attempt));
      } catch (error) {
        if (!(error instanceof TypeError) || attempt === 5) throw error;
        await pause(jitter(attempt));
      }
    }
  }

  /** Upload with progress, which fetch can't report. Resolves to {blob, faces}. */
  async upload(/** @type {string} */ path, /** @type {string} */ grant, /** @type {FormData} */ form,
    /** @type {(share: number) => void} */ progress, /** @type {AbortSignal} */ signal) {
    const token = await this.session.token();
    return new Promise((done, fail) => {
      const request = new XMLHttpRequest();
      request.open("POST", path);
      request.responseType = "blob";
      request.setRequestHeader("Authorization", `Bearer ${token}`);
      request.setRequestHeader("Grant", grant);
      request.upload.onprogress = (event) => progress(event.loaded / event.total);
      request.onerror = () => fail(new TypeError("connection lost"));
      request.onabort = () => fail(new DOMException("canceled", "AbortError"));
      request.onload = async () => {
        if (request.status === 200) {
          done({ blob: request.response, faces: Number(request.getResponseHeader("X-Faces")) });
        } else {
          const body = await request.response.text().then(JSON.parse).catch(() => ({}));
          fail(new Problem(request.status, body));
        }
      };
      signal.addEventListener("abort", () => request.abort(), { once: true });
      request.send(form);
    });
  }

  /** Upload for a clip, which comes back while it is made: fetch, because XMLHttpRequest hands nothing over before the
   * end. The upload's progress comes with the ticket's events. Resolves to {blob, frames}. */
  async uploadClip(/** @type {string} */ path, /** @type {string} */ grant, /** @type {FormData} */ form,
    /** @type {(what: string, value: any) => void} */ tell, /** @type {AbortSignal} */ signal) {
    const answer = await this.send(path, { method: "POST", headers: { Grant: grant }, body: form, signal });
    if (!answer.ok || !answer.body) throw await problem(answer);
    const type = answer.headers.get("Content-Type") || "video/mp4";
    tell("begin", type);
    const parts = [];
    for (const reader = answer.body.getReader(); ;) {
      const { value, done } = await reader.read();
      if (done) break;
      parts.push(value);
      tell("part", value);
    }
    tell("end", null);
    return { blob: new Blob(parts, { type }), frames: Number(answer.headers.get("X-Frames")) };
  }

  /** Snapshots of a ticket until it has ended. @param {any} ticket @param {AbortSignal} signal */
  async *events(ticket, signal) {
    for (let failures = 0; !signal.aborted;) {
      try {
        for await (const snapshot of failures < 4 ? this.stream(ticket, signal) : this.poll(ticket, signal)) {
          if (failures < 4) failures = 0;
          yield snapshot;
          if (ENDED.has(snapshot.state)) return;
        }
      } catch (error) {
        if (signal.aborted) return;
        if (error instanceof Problem && !AGAIN.has(error.status)) throw error;
        failures++;
        await pause(jitter(Math.min(failures, 5)));
      }
    }
  }

  async *stream(/** @type {any} */ ticket, /** @type {AbortSignal} */ signal) {
    const answer = await this.send(ticket.links.events, { headers: { Ticket: ticket.token }, signal });
    if (!answer.ok || !answer.body) throw await problem(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    for (let text = ""; ;) {
      const { value, done } = await reader.read();
      if (done) return;
      text += value;
      const blocks = text.split("\n\n");
      text = blocks.pop() || "";
      for (const block of blocks) {
        if (!block.includes("event: ticket")) continue;
        const data = block.split("\n").find((line) => line.startsWith("data: "));
        if (data) yield JSON.parse(data.slice(6));
      }
    }
  }

  /** For networks that hold streams back. */
  async *poll(/** @type {any} */ ticket, /** @type {AbortSignal} */ signal) {
    for (let tag = ""; !signal.aborted;) {
      const headers = { Ticket: ticket.token, Prefer: "wait=25", "If-None-Match": tag };
      const answer = await this.send(ticket.links.self, { headers, signal });
      if (answer.status === 304) continue;
      if (!answer.ok) throw await problem(answer);
      tag = answer.headers.get("ETag") || "";
      yield await answer.json();
    }
  }
}

export const ENDED = new Set(["succeeded", "failed", "canceled", "expired", "aborted"]);

/** @param {Response} answer */
export async function problem(answer) {
  return new Problem(answer.status, await answer.json().catch(() => ({})));
}
