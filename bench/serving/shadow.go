package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
)

// shadowRounds of the paced load, each once without and once with a shadow.
const shadowRounds = 5

// benchShadow measures what a shadow costs the champion's answers: another forest of the same size is asked about every row.
func (b *bench) benchShadow(ctx context.Context, m *project.Model, server *process, t *target) error {
	r, err := registry.Open(filepath.Join(b.data(), "registry"))
	if err != nil {
		return err
	}
	forest, err := trainForest(ctx, inputNames(m), 2)
	if err != nil {
		return err
	}
	digest, err := register(ctx, r, m, forest)
	if err != nil {
		return err
	}
	var without, with, moved []float64 // medians, ms, and how far the one is from the other, in per cent
	var cpu time.Duration
	answered := 0
	for range shadowRounds {
		alone, err := t.pace(ctx, connections, b.rate, b.span/2)
		if err != nil {
			return err
		}
		if err := r.SetArm(ctx, m.Name, registry.Shadow, digest, 100, "", ""); err != nil {
			return err
		}
		if err := t.untilMetric(ctx, shadowShare, 1); err != nil {
			return err
		}
		before := server.cpu()
		beside, err := t.pace(ctx, connections, b.rate, b.span/2)
		if err != nil {
			return err
		}
		cpu += server.cpu() - before
		answered += len(beside.latencies)
		if err := r.EndAlias(ctx, m.Name, registry.Shadow, digest, ""); err != nil {
			return err
		}
		if err := t.untilMetric(ctx, shadowShare, 0); err != nil {
			return err
		}
		without, with = append(without, alone.quantile(0.5)), append(with, beside.quantile(0.5))
		moved = append(moved, 100*(with[len(with)-1]/without[len(without)-1]-1))
	}
	scored, err := t.metric(ctx, shadowScored)
	if err != nil {
		return err
	}
	dropped, err := t.metric(ctx, shadowDropped)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{
		"server": "millrace", "case": "score+shadow", "rate": b.rate, "rounds": shadowRounds, "p50_ms": round(median(with)), "p50_ms_without": round(median(without)),
		"p50_moved_percent": round(median(moved)), "cpu_us_per_request_at_rate": round(float64(cpu.Microseconds()) / float64(max(1, answered))),
		"shadow_rows": scored, "shadow_dropped": dropped,
	})
}

// What a serving process tells of the shadow of the model score.
const (
	shadowShare   = `millrace_serving_arm_share{arm="shadow",model="score"}`
	shadowScored  = `millrace_serving_arm_score_count{arm="shadow",model="score"}`
	shadowDropped = `millrace_serving_shadow_dropped_total{model="score"}`
)

// metric is a sample of the server's /metrics, 0 where it is not there.
func (t *target) metric(ctx context.Context, sample string) (float64, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+t.addr+"/metrics", nil)
	if err != nil {
		return 0, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, sample+" "); ok {
			return strconv.ParseFloat(strings.TrimSpace(value), 64)
		}
	}
	return 0, nil
}

// untilMetric waits for a sample to have a value.
func (t *target) untilMetric(ctx context.Context, sample string, want float64) error {
	for range 200 {
		got, err := t.metric(ctx, sample)
		if err != nil || got == want {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("%s does not become %v", sample, want)
}

func median(list []float64) float64 { return slices.Sorted(slices.Values(list))[len(list)/2] }
