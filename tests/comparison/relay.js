// SPDX-License-Identifier: MIT
// Node.js with Bottleneck and undici, for the comparison: lines of JSON from a Unix socket, each signed and sent to
// ZEGO over HTTPS, and its fate told to the writer who gave an id.
//
//     SOCKET=... URL=... CA_FILE=... APPID=... SECRET_FILE=... node relay.js reservoir|rooms
//
// There are two ways of keeping to 100 a second, told at their functions.
'use strict';

const crypto = require('node:crypto');
const fs = require('node:fs');
const net = require('node:net');
const Bottleneck = require('bottleneck');
const { Pool } = require('undici');

const { SOCKET, URL, CA_FILE, APPID, SECRET_FILE } = process.env;
const SECRET = fs.readFileSync(SECRET_FILE, 'utf8').trim();

const RATE = 100; // requests a second for the AppID
const ROOM_RATE = 20; // and for one room
const MAX_AGE = 3000; // ms after which a message is not worth sending
const IN_FLIGHT = 64;
const MAX_LINE = 16384;
const MAX_UNREAD = 256 * 1024; // of replies that a writer does not read

const pool = new Pool(URL, {
  connections: IN_FLIGHT,
  pipelining: 1,
  keepAliveTimeout: 60_000,
  connect: { ca: fs.readFileSync(CA_FILE), timeout: 2000 },
  headersTimeout: 5000,
  bodyTimeout: 5000,
});

// ZEGO wants all but A-Z a-z 0-9 - . _ ~ encoded.
function encode(text) {
  return encodeURIComponent(text).replace(/[!'()*]/g, (c) => '%' + c.charCodeAt(0).toString(16).toUpperCase());
}

async function send(message) {
  const nonce = crypto.randomBytes(8).toString('hex');
  const timestamp = Math.floor(Date.now() / 1000);
  const signature = crypto.createHash('md5').update(`${APPID}${nonce}${SECRET}${timestamp}`).digest('hex');
  const path =
    `/?Action=SendBarrageMessage&AppId=${APPID}&SignatureNonce=${nonce}&Timestamp=${timestamp}` +
    `&Signature=${signature}&SignatureVersion=2.0&RoomId=${encode(message.RoomId)}` +
    `&UserId=${encode(message.UserId)}&MessageCategory=2&MessageContent=${encode(message.MessageContent)}`;
  const { body } = await pool.request({ method: 'GET', path });
  const answer = await body.json();
  if (answer.Code !== 0) throw new Error(`Code ${answer.Code}`);
  return answer;
}

// What Bottleneck's documentation gives for "100 a second": a reservoir that is filled again each second. One queue for
// all rooms; when it holds three seconds' worth, the oldest message makes way.
function reservoir() {
  const limiter = new Bottleneck({
    reservoir: RATE,
    reservoirRefreshAmount: RATE,
    reservoirRefreshInterval: 1000,
    maxConcurrent: IN_FLIGHT,
    highWater: (RATE * MAX_AGE) / 1000,
    strategy: Bottleneck.strategy.LEAK,
  });
  return (message) => limiter.schedule(() => send(message));
}

// With more thought: requests spread evenly, and a limiter for each room in front. A room has one message at a time
// with the common limiter, so that rooms take turns and its own messages stay in order. Not LEAK: if it drops the very
// message that is about to be started, that one's place stays taken (Bottleneck's issues 152 and 189), and with one
// place the room is silent for good.
function rooms() {
  const limiter = new Bottleneck({ minTime: 1000 / RATE, maxConcurrent: IN_FLIGHT });
  const group = new Bottleneck.Group({
    minTime: 1000 / ROOM_RATE,
    maxConcurrent: 1,
    highWater: ROOM_RATE,
    strategy: Bottleneck.strategy.OVERFLOW,
  });
  return (message) => {
    const received = Date.now();
    return group.key(message.RoomId).schedule(() => {
      if (Date.now() - received > MAX_AGE) throw new Bottleneck.BottleneckError('expired');
      return limiter.schedule(() => send(message));
    });
  };
}

function parse(line) {
  const message = JSON.parse(line);
  for (const [name, most] of [['RoomId', 127], ['UserId', 63], ['MessageContent', 1024]]) {
    const value = message[name];
    if (typeof value !== 'string' || value === '' || Buffer.byteLength(value) > most) throw new Error(`bad ${name}`);
  }
  return message;
}

// A Bottleneck takes in a job in a millisecond or more, even one that it drops. Without a limit before it, a flood of
// lines fills the memory with jobs that wait to be taken in; and reading without a rest leaves it no time for any.
const MAX_PENDING = 1000; // lines whose fate is open
const REST = 50; // ms for which a writer is not read after that
let allPending = 0;

const push = { reservoir, rooms }[process.argv[2]]();

function serve(writer) {
  let rest = '';
  let pending = 0;
  let ended = false;

  function reply(fate) {
    if (writer.writable && writer.writableLength < MAX_UNREAD) writer.write(JSON.stringify(fate) + '\n');
  }

  function settle(message, fate) {
    if (message.id !== undefined) reply({ id: message.id, ...fate });
    allPending--;
    if (--pending === 0 && ended) writer.end();
  }

  function take(line) {
    let message;
    try {
      message = parse(line);
    } catch (error) {
      reply({ outcome: 'rejected', reason: error.message });
      return;
    }
    if (allPending >= MAX_PENDING) {
      if (message.id !== undefined) reply({ id: message.id, outcome: 'dropped', reason: 'queue_full' });
      return;
    }
    pending++;
    allPending++;
    push(message).then(
      (answer) => settle(message, { outcome: 'sent', MessageId: answer.Data?.MessageId, RequestId: answer.RequestId }),
      (error) =>
        settle(message, {
          outcome: error instanceof Bottleneck.BottleneckError ? 'dropped' : 'failed',
          reason: error.message,
        }),
    );
  }

  writer.setEncoding('utf8');
  writer.on('data', (chunk) => {
    const lines = (rest + chunk).split('\n');
    rest = lines.pop();
    for (const line of lines) if (line) take(line);
    if (rest.length > MAX_LINE) writer.destroy();
    if (allPending >= MAX_PENDING) {
      writer.pause();
      setTimeout(() => writer.resume(), REST);
    }
  });
  writer.on('end', () => {
    ended = true;
    if (pending === 0) writer.end();
  });
  writer.on('error', () => writer.destroy());
}

net.createServer({ allowHalfOpen: true }, serve).listen(SOCKET);
