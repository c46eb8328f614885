package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"
)

// benchLimit measures what a request costs a server of net/http that reads the body and sends what Millrace answered, as it is: on this
// machine nothing that Millrace does in net/http can be cheaper, or sooner.
func (b *bench) benchLimit(ctx context.Context, rows [][]float64) error {
	if len(b.answer) == 0 {
		return errors.New("it sends what millrace answered: name millrace before it")
	}
	addr, _, err := freeAddr()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	server, err := start(b.work, "limit", serverCore, []string{"GOMAXPROCS=1", "GOGC=200"}, b.answer, self, "-limit", addr)
	if err != nil {
		return err
	}
	defer server.stop()
	score := &target{addr: addr, path: "/"}
	if score.bodies, err = scoreBodies(rows); err != nil {
		return err
	}
	if err := server.ready(ctx, score); err != nil {
		return err
	}
	return b.measure(ctx, server, score, "limit: net/http reads and sends", "score")
}

// serveLimit answers every request with the same bytes.
func serveLimit(addr string, answer io.Reader) error {
	body, err := io.ReadAll(answer)
	if err != nil {
		return err
	}
	length := strconv.Itoa(len(body))
	server := &http.Server{Addr: addr, ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", length)
		_, _ = w.Write(body)
	})}
	return server.ListenAndServe()
}
