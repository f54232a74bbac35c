// gorilla: github.com/gorilla/websocket with encoding/json, the way a Go service would use them.
// Built only where Go and the module are at hand; the same command line as the Python servers.
package main

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/gorilla/websocket"
)

type client struct {
	conn  *websocket.Conn
	user  string
	write sync.Mutex // gorilla allows one writer at a time
}

func (c *client) send(message []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	return c.conn.WriteMessage(websocket.TextMessage, message)
}

func userID(authorization string, secret []byte) (string, error) {
	parts := strings.Split(strings.TrimPrefix(authorization, "Bearer "), ".")
	if len(parts) != 3 {
		return "", errors.New("no bearer token")
	}
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(parts[0] + "." + parts[1]))
	given, err := base64.RawURLEncoding.DecodeString(parts[2])
	if err != nil || !hmac.Equal(mac.Sum(nil), given) {
		return "", errors.New("wrong signature")
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return "", err
	}
	var claims struct {
		Sub string `json:"sub"`
		Exp int64  `json:"exp"`
	}
	if err := json.Unmarshal(body, &claims); err != nil {
		return "", err
	}
	if claims.Exp < time.Now().Unix() {
		return "", errors.New("expired")
	}
	return claims.Sub, nil
}

func main() {
	port := flag.Int("port", 0, "")
	mode := flag.String("mode", "json", "json, raw or fanout")
	pingInterval := flag.Float64("ping-interval", 0, "seconds, 0: none")
	flag.Parse()
	secret := []byte(os.Getenv("BENCH_JWT_SECRET"))
	upgrader := websocket.Upgrader{ReadBufferSize: 4096, WriteBufferSize: 4096}
	var registry sync.RWMutex
	clients := map[*client]bool{}

	serve := func(w http.ResponseWriter, r *http.Request) {
		user, err := userID(r.Header.Get("Authorization"), secret)
		if err != nil {
			http.Error(w, "token refused", http.StatusUnauthorized)
			return
		}
		conn, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		c := &client{conn: conn, user: user}
		publishes := *mode == "fanout" && r.URL.Path == "/pub"
		gone := make(chan struct{})
		registry.Lock()
		clients[c] = !publishes
		registry.Unlock()
		defer func() {
			close(gone)
			registry.Lock()
			delete(clients, c)
			registry.Unlock()
			conn.Close()
		}()
		if *pingInterval > 0 {
			go func() {
				ticker := time.NewTicker(time.Duration(*pingInterval * float64(time.Second)))
				defer ticker.Stop()
				for {
					select {
					case <-gone:
						return
					case <-ticker.C:
						conn.WriteControl(websocket.PingMessage, nil, time.Now().Add(10*time.Second))
					}
				}
			}()
		}
		for {
			_, message, err := conn.ReadMessage()
			if err != nil {
				return
			}
			switch {
			case *mode == "json":
				var value interface{}
				if json.Unmarshal(message, &value) != nil {
					return
				}
				if message, err = json.Marshal(value); err != nil {
					return
				}
				err = c.send(message)
			case *mode == "raw":
				err = c.send(message)
			case publishes:
				registry.RLock()
				for member, subscribed := range clients {
					if subscribed {
						member.send(message)
					}
				}
				registry.RUnlock()
			}
			if err != nil {
				return
			}
		}
	}
	http.HandleFunc("/", serve)
	log.Fatal(http.ListenAndServe(fmt.Sprintf("127.0.0.1:%d", *port), nil))
}
