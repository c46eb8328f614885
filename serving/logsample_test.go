package serving

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/cespare/xxhash/v2"

	"github.com/millrace/millrace/schemas"
)

// Of ordinary answers those of the sampled entities are logged, every time; refusals always, marked where they are not of the sample.
func TestLogSample(t *testing.T) {
	w := newWorld(t, withKafka)
	w.model().Serve.LogSample, w.model().Serve.Required = 0.3, []string{"origin_delays.delay_mean_1h"}
	w.fallTo()
	w.promote(byDelay(0.1))
	s := w.make()
	if err := s.models["late"].look(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.server = httptest.NewServer(s.Handler())
	defer w.server.Close()
	const entities = 400
	out, kept := 0, 0
	for i := range entities {
		origin := fmt.Sprint("A", i)
		if seen := i%4 != 0; seen {
			w.apply(arrival{origin, noon.Add(-time.Minute), 10})
		}
		of := float64(xxhash.Sum64String("log\x00late\x00"+origin)>>11)/(1<<53) < 0.3
		for range 2 {
			_, a := w.post(strings.Replace(flight, "ATL", origin, 1))
			refused := len(a.Predictions) == 1 && a.Predictions[0].Score == nil
			if refused != (i%4 == 0) {
				t.Fatalf("%s: %+v", origin, a)
			}
			if of || refused {
				kept++
			} else {
				out++
			}
			select {
			case r := <-s.log.queue:
				if !of && !refused {
					t.Errorf("%s is logged", origin)
				}
				if marked := len(r.Headers) == 1 && r.Headers[0].Key == schemas.HeaderUnsampled; marked == of {
					t.Errorf("%s: marked as not of the sample: %v", origin, marked)
				}
			default:
				if of || refused {
					t.Errorf("%s is not logged", origin)
				}
			}
		}
	}
	if kept < entities*2/4 || out < entities/2 {
		t.Errorf("%d kept, %d not", kept, out)
	}
	if n := w.metric("millrace_serving_log_sampled_out_total", "model", "late"); n != float64(out) {
		t.Errorf("%v counted, want %d", n, out)
	}
}

// What is not a champion's own answer is logged whatever the sample.
func TestNotable(t *testing.T) {
	for want, some := range map[bool][]schemas.Prediction{
		false: {{Arm: "champion", Rung: "primary"}},
		true:  {{Arm: "challenger", Rung: "primary"}, {Arm: "champion", Rung: "previous"}, {Arm: "champion", Rung: "default"}, {Arm: "champion", Rung: "refused", Refused: true}},
	} {
		for _, p := range some {
			if notable(&p) != want {
				t.Errorf("%+v", p)
			}
		}
	}
}
