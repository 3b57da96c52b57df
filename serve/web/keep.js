/** What a reload must not lose: the ticket, and the pictures or the clip until the swap has ended. This browser only. */

const DATABASE = "nanoswap";
const STORE = "swap";

/** @returns {Promise<IDBDatabase>} */
const database = () => new Promise((done, fail) => {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore(STORE);
  request.onsuccess = () => done(request.result);
  request.onerror = () => fail(request.error);
});

/** @param {IDBTransactionMode} mode @param {(store: IDBObjectStore) => IDBRequest} work */
async function run(mode, work) {
  const opened = await database();
  try {
    return await new Promise((done, fail) => {
      const transaction = opened.transaction(STORE, mode);
      const request = work(transaction.objectStore(STORE));
      transaction.oncomplete = () => done(request.result);
      transaction.onerror = transaction.onabort = () => fail(transaction.error);
    });
  } finally {
    opened.close();
  }
}

/** Without storage (private windows, full disks) the page works, only a reload loses the place. */
const quietly = (/** @type {Promise<any>} */ work) => work.catch(() => null);

export const keep = (/** @type {any} */ job) => quietly(run("readwrite", (store) => store.put(job, "job")));
export const kept = () => quietly(run("readonly", (store) => store.get("job")));
export const forget = () => quietly(run("readwrite", (store) => store.delete("job")));
