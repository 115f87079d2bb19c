// Sends a batch through syncgate with axios. Setup: npm install. Run: node sync.js
import { readFileSync } from 'node:fs';
import { Agent } from 'node:https';
import axios from 'axios';

const { SYNCGATE_URL, SYNCGATE_USER, SYNCGATE_PASSWORD, SYNCGATE_CA, SYNCGATE_CALLS } = process.env;

const gateway = axios.create({
  baseURL: SYNCGATE_URL ?? 'https://127.0.0.1:8443',
  httpsAgent: new Agent({ keepAlive: true, ca: SYNCGATE_CA && readFileSync(SYNCGATE_CA) }),
  validateStatus: () => true, // Every status is looked at below.
});

const batch = { form: 'setCustomer', data: [{ fkey: 'C-1001', name: 'Example Ltd' }] };

let token;

async function logIn() {
  const credentials = { username: SYNCGATE_USER, password: SYNCGATE_PASSWORD };
  const answer = await gateway.post('/api/getToken', credentials);
  if (answer.status !== 200) {
    throw new Error(`log-in failed: ${JSON.stringify(answer.data)}`);
  }
  token = answer.data.token.accesstoken; // The string, not the object around it.
}

function send() {
  return gateway.post('/api/SyncData', batch, { headers: { Authorization: `Bearer ${token}` } });
}

async function sync() {
  if (!token) await logIn();
  let answer = await send();
  if (answer.status === 401) {
    await logIn(); // The token has expired or was revoked: get a new one and try once more.
    answer = await send();
  }
  if (answer.status < 200 || answer.status > 299) {
    throw new Error(`call failed with status ${answer.status}: ${JSON.stringify(answer.data)}`);
  }
  return answer.data;
}

try {
  for (let call = 0; call < Number(SYNCGATE_CALLS ?? 1); call++) {
    console.log(JSON.stringify(await sync()));
  }
} catch (error) {
  console.error(error.message); // Not the error itself: it holds the request, token included.
  process.exitCode = 1;
} finally {
  gateway.defaults.httpsAgent.destroy();
}
