package e2e

import (
	"net"
	"sync"
	"testing"
	"time"
)

// proxy is a TCP address whose server can change, be slow, stall, or be out of reach: a network between Millrace and Redis, or between a
// primary and its replica.
type proxy struct {
	listener net.Listener

	mu      sync.Mutex
	change  *sync.Cond // of anything below
	target  string     // empty: nobody answers
	delay   func() time.Duration
	stalled bool
	conns   map[net.Conn]struct{}
}

func startProxy(t *testing.T, target string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{listener: l, target: target, conns: map[net.Conn]struct{}{}}
	p.change = sync.NewCond(&p.mu)
	go p.accept()
	t.Cleanup(func() {
		l.Close()
		p.stall(false)
		p.point("")
	})
	return p
}

func (p *proxy) addr() string { return p.listener.Addr().String() }

func (p *proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		go p.serve(client)
	}
}

func (p *proxy) serve(client net.Conn) {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	server, err := net.Dial("tcp", target)
	if err != nil {
		client.Close()
		return
	}
	p.mu.Lock()
	stale := p.target != target
	p.conns[client], p.conns[server] = struct{}{}, struct{}{}
	p.mu.Unlock()
	if stale {
		p.close(client, server)
		return
	}
	go p.copy(server, client)
	p.copy(client, server)
}

// copy passes on what arrives, late.
func (p *proxy) copy(to, from net.Conn) {
	defer p.close(to, from)
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		p.mu.Lock()
		for p.stalled {
			p.change.Wait()
		}
		delay := p.delay
		p.mu.Unlock()
		if delay != nil {
			<-time.After(delay())
		}
		if n > 0 {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (p *proxy) close(conns ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range conns {
		c.Close()
		delete(p.conns, c)
	}
}

// point sends new connections to target and cuts the old ones.
func (p *proxy) point(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
	for c := range p.conns {
		c.Close()
	}
}

// stall holds everything back, or lets it go.
func (p *proxy) stall(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = on
	p.change.Broadcast()
}

// slow delays every piece of data by what delay says.
func (p *proxy) slow(delay func() time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = delay
}
