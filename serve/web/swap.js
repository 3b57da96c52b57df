/** One swap from the place in line to the result. Knows nothing of the page: it tells a listener what happens. */
import { ENDED, Problem, pause } from "/web/api.js";

/** Problems after which the place is still ours and the next grant will do. */
const STILL_OURS = new Set(["grant_expired", "grant_used", "incomplete", "lost_turn", "internal", "room_unavailable", "unavailable"]);

/** A grant lasts 15 s, and the edge asks for five seconds between two tries. */
const UPLOAD_TRIES = 3;

/** Take a place. @param {any} api @param {any} job */
export async function join(api, job) {
  const body = {
    kind: job.kind, bytes: job.source.size + job.target.size, width: job.width, height: job.height, frames: job.frames,
    consent: job.consent,
  };
  const answer = await api.repeat("/v1/tickets", {
    method: "POST",
    headers: { "Content-Type": "application/json", "Idempotency-Key": job.key },
    body: JSON.stringify(body),
  });
  return answer.json();
}

/** Follow the ticket of a job to its result. Returns {blob, faces} or {blob, frames}; throws a Problem when it ends
 * otherwise. Tells "ticket" (a snapshot), "upload" (a share), and of a clip "begin" (its type) and "part" (bytes).
 * @param {any} api @param {any} job @param {(what: string, value: any) => void} tell @param {AbortSignal} signal */
export async function follow(api, job, tell, signal) {
  const events = api.events(job.ticket, signal);
  let upload = null;
  let used = "";
  for await (const ticket of events) {
    tell("ticket", ticket);
    if (ticket.state === "granted" && ticket.grant !== used) {
      used = ticket.grant;
      const send = () => job.kind === "video"
        ? api.uploadClip(ticket.links.swap, ticket.grant, form(job), tell, signal)
        : api.upload(ticket.links.swap, ticket.grant, form(job), (/** @type {number} */ share) => tell("upload", share), signal);
      upload = whileUnused(send, signal).then((/** @type {any} */ result) => ({ result }), (/** @type {any} */ error) => ({ error }));
    }
    if (upload && (ticket.state === "parked" || ticket.state === "waiting")) upload = null;
    if (ENDED.has(ticket.state)) {
      const ended = upload && await upload;
      if (ended?.result) return job.kind === "video" ? whole(ended.result, ticket) : ended.result;
      if (ended?.error instanceof Problem && !STILL_OURS.has(ended.error.code)) throw ended.error;
      throw new Problem(410, ticket.problem || { code: ticket.state, title: `The ticket was ${ticket.state}` });
    }
  }
  throw new DOMException("canceled", "AbortError");
}

/** Where no replica was there the grant is unused, and another comes only when it has passed.
 * @param {() => Promise<any>} send @param {AbortSignal} signal */
async function whileUnused(send, signal) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await send();
    } catch (error) {
      const unused = error instanceof Problem && error.status === 503 && error.code === "unavailable" && error.retryAfter;
      if (!unused || attempt === UPLOAD_TRIES) throw error;
      await pause(error.retryAfter);
      signal.throwIfAborted();
    }
  }
}

/** A clip's length and digest are known only when it has been sent, so they come with the ticket.
 * @param {{blob: Blob, frames: number}} result @param {any} ticket */
async function whole(result, ticket) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", await result.blob.arrayBuffer()));
  const hex = [...digest].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  if (hex === ticket.result?.sha256) return result;
  throw new Problem(502, { code: "damaged", title: "The result was damaged on its way", detail: "Please swap again." });
}

/** @param {any} job */
function form(job) {
  const data = new FormData();
  for (const [name, value] of Object.entries({ faces: job.faces, ...job.part })) data.append(name, /** @type {string} */ (value));
  if (job.engine) data.append("engine", job.engine);
  if (job.seed !== undefined) data.append("seed", String(job.seed));
  if (job.sourceFace) data.append("source_face", job.sourceFace);
  data.append("source", job.source, "source");
  data.append("target", job.target, "target");
  return data;
}
