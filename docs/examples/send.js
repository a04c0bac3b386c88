#!/usr/bin/env node
// SPDX-License-Identifier: MIT
// Sends each TEXT to a room and prints the replies: send.js SOCKET ROOM USER TEXT...
// The exit status is 0 if every message was sent.
'use strict';

const net = require('node:net');

const [path, room, user, ...texts] = process.argv.slice(2);
const daemon = net.createConnection(path);
let sent = 0;
let rest = ''; // the beginning of a line whose end has not come yet

daemon.on('connect', () => {
  texts.forEach((text, i) => {
    const message = { id: i + 1, RoomId: room, UserId: user, MessageContent: text };
    daemon.write(JSON.stringify(message) + '\n');
  });
  daemon.end(); // no more lines; the replies still come
});

// Not node:readline: it also ends lines at U+2028, which a reply may contain.
daemon.setEncoding('utf8');
daemon.on('data', (chunk) => {
  const lines = (rest + chunk).split('\n');
  rest = lines.pop();
  for (const line of lines) {
    console.log(line);
    if (JSON.parse(line).outcome === 'sent') sent++;
  }
});
daemon.on('error', (error) => console.error(error.message));
daemon.on('close', () => { process.exitCode = sent === texts.length ? 0 : 1; });
