/** "Delete my data": ask once, have it removed there, then here. */
import { forget } from "/web/keep.js";
import { byId, say } from "/web/page.js";
import { words } from "/web/words.js";

export class Erase {
  /** @param {any} api @param {any} session @param {() => void} stop ends what the page is doing */
  constructor(api, session, stop) {
    this.api = api;
    this.session = session;
    this.stop = stop;
    const dialog = /** @type {HTMLDialogElement} */ (byId("delete-dialog"));
    byId("delete-data").addEventListener("click", () => { say("delete-error", ""); dialog.showModal(); });
    byId("delete-close").addEventListener("click", () => dialog.close());
    byId("delete-confirm").addEventListener("click", () => this.erase());
  }

  async erase() {
    this.stop();
    try {
      await this.api.repeat("/v1/account", { method: "DELETE" });
    } catch (error) {
      // The first try may have done it and its answer been lost: then the token is already refused.
      if (/** @type {any} */ (error).code !== "session_revoked") { say("delete-error", words(error)[0]); return; }
    }
    await forget();
    await this.session.signOut();
    // What is in this page's memory goes with the page.
    location.reload();
  }
}
