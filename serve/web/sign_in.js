/** The sign-in dialog and the account in the bar. */
import { forget } from "/web/keep.js";
import { byId, say, show } from "/web/page.js";
import { words } from "/web/words.js";

export class SignIn {
  /** @param {any} session @param {any} auth @param {() => Promise<void>} changed told after somebody has signed in */
  constructor(session, auth, changed) {
    this.session = session;
    this.changed = changed;
    this.then = () => {};
    const field = (/** @type {string} */ id) => /** @type {HTMLInputElement} */ (byId(id));
    show("demo", Boolean(auth.demo));
    byId("sign-in").addEventListener("click", () => this.open(() => {}));
    byId("sign-in-close").addEventListener("click", () => this.dialog.close());
    byId("sign-out").addEventListener("click", async () => {
      await forget();
      await session.signOut();
      // The next person at this screen sees nothing of what this one chose.
      location.reload();
    });
    byId("demo-sign-in").addEventListener("click", () => this.signIn(auth.demo.email, auth.demo.password));
    byId("sign-in-form").addEventListener("submit", (event) => {
      event.preventDefault();
      this.signIn(field("email").value, field("password").value);
    });
  }

  get dialog() { return /** @type {HTMLDialogElement} */ (byId("sign-in-dialog")); }

  /** @param {() => void} then */
  open(then) {
    this.then = then;
    say("sign-in-error", "");
    if (!this.dialog.open) this.dialog.showModal();
  }

  async account() {
    const who = await this.session.who();
    show("sign-in", !who);
    show("sign-out", Boolean(who));
    show("who", Boolean(who));
    show("delete-data", Boolean(who));
    say("who", who || "");
  }

  /** @param {string} email @param {string} password */
  async signIn(email, password) {
    try {
      await this.session.signIn(email, password);
    } catch (error) {
      say("sign-in-error", words(error)[0]);
      return;
    }
    this.dialog.close();
    await this.account();
    await this.changed();
    this.then();
  }
}
