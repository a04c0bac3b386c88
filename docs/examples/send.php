#!/usr/bin/env php
<?php
// SPDX-License-Identifier: MIT
// Sends each TEXT to a room and prints the replies: send.php SOCKET ROOM USER TEXT...
// The exit status is 0 if every message was sent.
declare(strict_types=1);

[, $path, $room, $user] = $argv;
$texts = array_slice($argv, 4);

$daemon = stream_socket_client("unix://$path", $code, $error);
if ($daemon === false) {
    exit(1); // PHP has said why
}
stream_set_timeout($daemon, 120); // no message waits longer

foreach ($texts as $i => $text) {
    $message = ['id' => $i + 1, 'RoomId' => $room, 'UserId' => $user, 'MessageContent' => $text];
    fwrite($daemon, json_encode($message, JSON_THROW_ON_ERROR) . "\n");
}
stream_socket_shutdown($daemon, STREAM_SHUT_WR); // no more lines; the replies still come

$sent = 0;
while (($line = fgets($daemon)) !== false) { // a whole line, in whatever pieces it arrives
    $reply = json_decode($line, true, 512, JSON_THROW_ON_ERROR);
    echo $line;
    $sent += $reply['outcome'] === 'sent' ? 1 : 0;
}
exit($sent === count($texts) ? 0 : 1);
