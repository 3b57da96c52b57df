/** The same request from one's own code, with what is chosen now. */
import { byId, say } from "/web/page.js";

const LANGUAGES = ["curl", "python"];

/** What is chosen, as a request needs it. `part` is that of a clip.
 * @typedef {{kind: string, bytes: number, width: number, height: number, frames: number, consent: string, faces: string,
 *   part: Record<string, string>}} Now */

/** @param {string} language @param {Now} now */
export const code = (language, now) => (language === "python" ? python(now) : curl(now)).join("\n");

/** @param {Now} now */
function python(now) {
  const [target, result] = names(now);
  const options = [`faces="${now.faces}"`, ...fields(now).map(([name, value]) => `${name}=${Number(value)}`), "consent=True"];
  return [
    "from nanoswap.client import Client",
    "",
    `with Client("${location.origin}", token=TOKEN) as client:`,
    `    result = client.swap("face.jpg", "${target}", ${options.join(", ")})`,
    `    result.save("${result}")`,
  ];
}

/** @param {Now} now */
function curl(now) {
  const { origin } = location;
  const [target, result] = names(now);
  const clip = now.kind === "video";
  const { kind, bytes, width, height, frames, consent } = now;
  const ticket = JSON.stringify({ kind, bytes, width, height, ...(clip ? { frames } : {}), consent });
  const more = fields(now).map(([name, value]) => ` -F ${name}=${value}`).join("");
  return [
    "# 1. take a place in line; the answer says when it is your turn (\"grant\") and where to upload (\"links\")",
    `curl ${origin}/v1/tickets -H "Authorization: Bearer $TOKEN" \\`,
    `     -H "Idempotency-Key: $(uuidgen)" --json '${ticket}'`,
    "# 2. follow it until it is granted",
    `curl -N ${origin}/v1/tickets/$ID/events -H "Authorization: Bearer $TOKEN"`,
    clip ? "# 3. upload portrait and clip; the result is the answer, and plays while it comes" : "# 3. upload both pictures; the result is the answer",
    `curl${clip ? " -N" : ""} ${origin}/${kind}/v1/tickets/$ID/swap -H "Authorization: Bearer $TOKEN" -H "Grant: $GRANT" \\`,
    `     -F source=@face.jpg -F target=@${target} -F faces=${now.faces}${more} -o ${result}`,
  ];
}

/** @param {Now} now */
const names = (now) => (now.kind === "video" ? ["clip.mp4", "out.mp4"] : ["photo.jpg", "out.jpg"]);

/** @param {Now} now @returns {[string, string][]} */
const fields = ({ part }) => Object.entries(part);

/** The tabs that show it. */
export class CodeBox {
  /** @param {() => Now} now */
  constructor(now) {
    this.now = now;
    this.language = LANGUAGES[0];
    for (const name of LANGUAGES) {
      byId(`tab-${name}`).addEventListener("click", () => this.choose(name));
      byId(`tab-${name}`).addEventListener("keydown", (event) => {
        if (!["ArrowLeft", "ArrowRight"].includes(event.key)) return;
        const other = LANGUAGES[1 - LANGUAGES.indexOf(name)];
        this.choose(other);
        byId(`tab-${other}`).focus();
      });
    }
    byId("copy").addEventListener("click", async () => {
      await navigator.clipboard.writeText(byId("code").textContent || "");
      say("copy", "Copied");
      setTimeout(() => say("copy", "Copy"), 2000);
    });
  }

  /** @param {string} language */
  choose(language) {
    this.language = language;
    for (const name of LANGUAGES) {
      byId(`tab-${name}`).setAttribute("aria-selected", String(name === language));
      byId(`tab-${name}`).tabIndex = name === language ? 0 : -1;
    }
    byId("code").setAttribute("aria-labelledby", `tab-${language}`);
    this.draw();
  }

  draw() { say("code", code(this.language, this.now())); }
}
