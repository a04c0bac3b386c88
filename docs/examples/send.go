// SPDX-License-Identifier: MIT

// Sends each TEXT to a room and prints the replies: go run send.go SOCKET ROOM USER TEXT...
// The exit status is 0 if every message was sent.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"log"
	"net"
	"os"
)

type message struct {
	ID                             int `json:"id"`
	RoomId, UserId, MessageContent string
}

func main() {
	path, room, user, texts := os.Args[1], os.Args[2], os.Args[3], os.Args[4:]
	daemon, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		log.Fatal(err)
	}
	lines := json.NewEncoder(daemon) // ends each value with a newline
	for i, text := range texts {
		if err := lines.Encode(message{i + 1, room, user, text}); err != nil {
			log.Fatal(err)
		}
	}
	daemon.CloseWrite() // no more lines; the replies still come

	unsent := len(texts)
	replies := bufio.NewScanner(daemon)
	for replies.Scan() { // whole lines, in whatever pieces they arrive
		fmt.Println(replies.Text())
		var reply struct{ Outcome string }
		if json.Unmarshal(replies.Bytes(), &reply) == nil && reply.Outcome == "sent" {
			unsent--
		}
	}
	if unsent > 0 {
		os.Exit(1)
	}
}
