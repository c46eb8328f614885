package console

import (
	"context"
	"embed"
	"encoding/json"
	"io/fs"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/internal/clock"
	"github.com/millrace/millrace/internal/failure"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
)

//go:embed page
var page embed.FS

// Deps is what the console reads from.
type Deps struct {
	Project  *project.Project
	Registry *registry.Registry
	// NewClient connects to the project's Kafka.
	NewClient func(ctx context.Context, opts ...kgo.Opt) (*kgo.Client, error)
	Clock     clock.Clock
	Log       *slog.Logger
}

// Console follows the topics and answers for the page.
type Console struct {
	cfg  Config
	deps Deps
	tail tail

	mu        sync.Mutex
	client    *kgo.Client // for lags; made by Run
	state     *State
	assembled time.Time
}

// New makes a console; Run must run for its state to be true.
func New(cfg Config, deps Deps) (*Console, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	return &Console{cfg: cfg, deps: deps, tail: newTail(cfg, deps.Project.Own())}, nil
}

// Run follows the project's own topics until ctx ends.
func (c *Console) Run(ctx context.Context) error {
	client, err := c.deps.NewClient(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	c.mu.Lock()
	c.client = client
	c.mu.Unlock()
	return c.follow(ctx)
}

// Handler serves the page under /console/ and its state as JSON under /console/api/state.
func (c *Console) Handler() http.Handler {
	mux := http.NewServeMux()
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the folder is embedded: its absence is a fault of the build
	}
	mux.Handle("GET /console/", http.StripPrefix("/console/", http.FileServerFS(files)))
	mux.Handle("GET /console", http.RedirectHandler("/console/", http.StatusMovedPermanently))
	mux.HandleFunc("GET /console/api/state", c.serveState)
	return mux
}

func (c *Console) serveState(w http.ResponseWriter, r *http.Request) {
	state, err := c.State(r.Context())
	if err != nil {
		c.deps.Log.Warn("assembling the console's state", "err", err)
		http.Error(w, "the state cannot be assembled: see the log", failure.Of(err).Status())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err := json.NewEncoder(w).Encode(state); err != nil {
		c.deps.Log.Info("sending the console's state", "err", err)
	}
}

// State is what the page shows, at most Config.Refresh old.
func (c *Console) State(ctx context.Context) (*State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.deps.Clock()
	if c.state != nil && now.Sub(c.assembled) < c.cfg.Refresh {
		return c.state, nil
	}
	state, err := c.assemble(ctx, now)
	if err != nil {
		return nil, err
	}
	c.state, c.assembled = state, now
	return state, nil
}
