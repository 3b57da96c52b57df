/** Who is signed in, by Supabase's own client. Tokens are refreshed before they end. */
import { AuthClient } from "/web/vendor/auth-js.js";
import { Problem } from "/web/api.js";

export class Session {
  /** @param {{url: string, key: string | null}} auth */
  constructor(auth) {
    this.client = new AuthClient({
      url: auth.url,
      headers: auth.key ? { apikey: auth.key } : {},
      storageKey: "nanoswap-session",
      flowType: "pkce",
      autoRefreshToken: true,
      persistSession: true,
      detectSessionInUrl: true,
    });
  }

  /** A valid access token. Throws a Problem when nobody is signed in. */
  async token() {
    const { data } = await this.client.getSession();
    if (!data.session) throw new Problem(401, { code: "session_missing", title: "Sign in first" });
    return data.session.access_token;
  }

  /** The e-mail of whoever is signed in, or null. */
  async who() {
    const { data } = await this.client.getSession();
    return data.session ? data.session.user.email || "signed in" : null;
  }

  /** @param {string} email @param {string} password */
  async signIn(email, password) {
    const { error } = await this.client.signInWithPassword({ email, password });
    if (error) throw new Problem(401, { code: "sign_in", title: "The e-mail or the password is wrong." });
  }

  async signOut() { await this.client.signOut(); }
}
