package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/millrace/millrace/consistency"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/streams"
	"github.com/millrace/millrace/training"
)

// paymentsProject scores payments by features that include the payment that asks. One group is computed from the topic as it is keyed, the
// other through a topic of its own. The lateness keeps fine tiles for as long as the test's payments span.
const paymentsProject = `project: NAME
topic_prefix: NAME.
partitions: 4
clock: event
sources:
  payments: {topic: NAME.payments, schema: payment.avsc, format: json, key: card, time: at, lateness: 7d}
  chargebacks: {topic: NAME.chargebacks, schema: chargeback.avsc, format: json, key: payment_id, time: at, lateness: 7d}
features:
  by_card:
    source: payments
    entity: card
    where: amount > 0
    windows: [1h, 24h]
    features: {n: count(), spent: sum(amount), shops: distinct(shop)}
  by_shop:
    source: payments
    entity: shop
    windows: [1h, 24h]
    features: {n: count()}
models:
  fraud:
    on: payments
    inputs:
      - by_card.*: {include_request: true}
      - by_shop.n_1h: {include_request: true}
      - by_shop.n_24h
      - amount
    label: {source: chargebacks, join: payment_id, value: fraud, within: 1h}
    train: {window: 2d, holdout: 12h}
`

const paymentSchema = `{"type":"record","name":"payment","fields":[{"name":"payment_id","type":"string"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"card","type":"string"},{"name":"shop","type":"string"},{"name":"amount","type":"long"}]}`

const chargebackSchema = `{"type":"record","name":"chargeback","fields":[{"name":"payment_id","type":"string"},{"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}},
	{"name":"fraud","type":"boolean"}]}`

type payment struct {
	ID     string `json:"payment_id"`
	At     int64  `json:"at"`
	Card   string `json:"card"`
	Shop   string `json:"shop"`
	Amount int64  `json:"amount"`
}

// paymentsMade are minutes apart, so that none shares a tile with another and each read is exact whether or not later ones were applied.
func paymentsMade(n int) []payment {
	random := rand.New(rand.NewPCG(8, 9))
	at := time.Date(2001, 5, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	all := make([]payment, n)
	for i := range all {
		at += 121_000 + random.Int64N(180_000)
		all[i] = payment{fmt.Sprint("p", i), at, fmt.Sprint("card", random.IntN(12)), fmt.Sprint("shop", random.IntN(5)), random.Int64N(100) - 10}
	}
	return all
}

// inputsOf are the model's inputs for a payment, of those before it and of itself, from the definitions by hand: nil where there is no value.
func inputsOf(all []payment, p payment) map[string]*float64 {
	value := func(f float64) *float64 { return &f }
	inputs := map[string]*float64{"amount": value(float64(p.Amount))}
	cardKnown, shopKnown := p.Amount > 0, false
	for name, window := range map[string]int64{"1h": 3_600_000, "24h": 86_400_000} {
		tile := window / 60
		begin := func(edge int64) int64 { return (edge - window) / tile * tile }
		cardEdge := p.At
		if p.Amount > 0 {
			cardEdge++
		}
		var n, spent, shopWith, shop float64
		shops := map[string]bool{}
		count := func(o payment) {
			if o.Card == p.Card && o.Amount > 0 && o.At >= begin(cardEdge) {
				n++
				spent += float64(o.Amount)
				shops[o.Shop] = true
			}
			if o.Shop == p.Shop && o.At >= begin(p.At+1) {
				shopWith++
			}
		}
		for _, o := range all {
			if o.At >= p.At {
				break
			}
			count(o)
			if o.Shop == p.Shop && o.At >= begin(p.At) {
				shop++
			}
			cardKnown = cardKnown || o.Card == p.Card && o.Amount > 0
			shopKnown = shopKnown || o.Shop == p.Shop
		}
		count(p)
		inputs["by_card.n_"+name], inputs["by_card.shops_"+name], inputs["by_card.spent_"+name] = value(n), value(float64(len(shops))), value(spent)
		if n == 0 {
			inputs["by_card.spent_"+name] = nil
		}
		if name == "1h" {
			inputs["by_shop.n_1h"] = value(shopWith)
		} else {
			inputs["by_shop.n_24h"] = value(shop)
		}
	}
	if !cardKnown {
		for _, w := range []string{"1h", "24h"} {
			inputs["by_card.n_"+w], inputs["by_card.spent_"+w], inputs["by_card.shops_"+w] = nil, nil, nil
		}
	}
	if !shopKnown {
		inputs["by_shop.n_24h"] = nil
	}
	return inputs
}

func equalInputs(a, b map[string]*float64) string {
	for name, want := range b {
		got := a[name]
		if (got == nil) != (want == nil) || got != nil && math.Abs(*got-*want) > 1e-9*math.Abs(*want) {
			return fmt.Sprintf("%s is %s, want %s", name, shown(got), shown(want))
		}
	}
	if len(a) != len(b) {
		return fmt.Sprintf("%d inputs, want %d", len(a), len(b))
	}
	return ""
}

func shown(f *float64) string {
	if f == nil {
		return "null"
	}
	return fmt.Sprint(*f)
}

func newPaymentsStand(t *testing.T) *stand {
	t.Helper()
	s := newStand(t)
	s.dir = t.TempDir()
	name := fmt.Sprintf("payments_%d", time.Now().UnixNano())
	for file, text := range map[string]string{project.FileName: strings.ReplaceAll(paymentsProject, "NAME", name), "payment.avsc": paymentSchema, "chargeback.avsc": chargebackSchema} {
		must(t, os.WriteFile(filepath.Join(s.dir, file), []byte(text), 0o644))
	}
	var err error
	s.project, err = project.Load(s.dir)
	must(t, err)
	s.ensureTopics()
	return s
}

func (s *stand) produceJSON(topic string, keys []string, events []any) {
	s.t.Helper()
	client, err := streams.NewClient(s.brokers())
	must(s.t, err)
	defer client.Close()
	records := make([]*kgo.Record, len(events))
	for i, e := range events {
		value, err := json.Marshal(e)
		must(s.t, err)
		records[i] = &kgo.Record{Topic: topic, Key: []byte(keys[i]), Value: value}
	}
	must(s.t, client.ProduceSync(context.Background(), records...).FirstErr())
}

// TestIncludeRequest scores payments on the topic and over HTTP with features that include the payment itself, and holds what was served to
// the payments by hand, to the training set, and to what consistency computes again.
func TestIncludeRequest(t *testing.T) {
	s := newPaymentsStand(t)
	all := paymentsMade(1500)
	s.promoteBy("fraud", "amount", time.UnixMilli(all[0].At-1).UTC())
	worker, serve := s.start("stream"), s.start("serve")
	var keys, ids []string
	var payments, chargebacks []any
	for i, p := range all {
		keys, ids = append(keys, p.Card), append(ids, p.ID)
		payments = append(payments, p)
		chargebacks = append(chargebacks, map[string]any{"payment_id": p.ID, "at": p.At + 600_000, "fraud": i%7 == 0})
	}
	s.produceJSON(s.project.Source("chargebacks").Topic, ids, chargebacks)
	const parts = 5
	for i := range parts {
		from, until := i*len(all)/parts, (i+1)*len(all)/parts
		s.produceJSON(s.project.Source("payments").Topic, keys[from:until], payments[from:until])
		s.awaitScored(until)
	}
	s.awaitApplied()

	last := all[len(all)-1]
	asked := payment{"asked", last.At + 5_000_000, last.Card, last.Shop, 50}
	body, err := json.Marshal(map[string]any{"rows": []any{asked}, "at": asked.At})
	must(t, err)
	resp, err := http.Post(serve.endpoint+"/v1/models/fraud:score", "application/json", bytes.NewReader(body))
	must(t, err)
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	resp.Body.Close()
	var answer struct {
		Predictions []struct {
			Features []struct {
				Name  string
				Value *float64
			}
		}
	}
	if must(t, json.Unmarshal(text, &answer)); len(answer.Predictions) != 1 {
		t.Fatalf("%d: %s", resp.StatusCode, text)
	}
	over := map[string]*float64{}
	for _, in := range answer.Predictions[0].Features {
		over[in.Name] = in.Value
	}
	if wrong := equalInputs(over, inputsOf(all, asked)); wrong != "" {
		t.Errorf("over HTTP %s", wrong)
	}
	worker.stop()
	serve.stop()

	served := map[string]map[string]*float64{}
	_, err = streams.Read(context.Background(), s.brokers(), streams.ReadOptions{Topic: s.project.Own().Predictions.Name}, func(r *kgo.Record) error {
		p, err := schemas.UnmarshalPrediction(r.Value)
		if err != nil {
			return err
		}
		if served[p.JoinKey] != nil {
			t.Errorf("%s is scored twice", p.JoinKey)
		}
		served[p.JoinKey] = map[string]*float64{}
		for _, in := range p.Inputs {
			served[p.JoinKey][in.Name] = in.Value
		}
		return nil
	})
	must(t, err)
	for _, p := range all {
		if wrong := equalInputs(served[p.ID], inputsOf(all, p)); wrong != "" {
			t.Fatalf("served for %+v: %s", p, wrong)
		}
	}

	d, err := training.Build(context.Background(), training.Default(), filepath.Join(s.data, "offline"), s.project.Model("fraud"), last.At+3_600_001, func(string, int64, int64) {})
	must(t, err)
	if len(d.Keys) < 500 {
		t.Fatalf("%d training rows", len(d.Keys))
	}
	for r, key := range d.Keys {
		trained := map[string]*float64{}
		for i, name := range d.Names {
			if v := d.Columns[i][r]; math.IsNaN(v) {
				trained[name] = nil
			} else {
				trained[name] = &v
			}
		}
		if wrong := equalInputs(trained, served[key]); wrong != "" {
			t.Fatalf("trained on %s, not as served: %s", key, wrong)
		}
	}
	must(t, training.Verify(training.Default(), d))

	report, status := s.consistency(s.data)
	if status != 0 || report.Skipped != (consistency.Skipped{}) || report.Reads != 3*(len(all)+1) || len(different(report)) > 0 {
		t.Errorf("status %d: %+v, different %v", status, report, different(report))
	}
}

// promoteBy makes a champion of a model that scores by one input.
func (s *stand) promoteBy(name, input string, from time.Time) {
	s.t.Helper()
	s.promoteWeighted(name, map[string]float64{input: 0.001}, from)
}

// promoteWeighted makes a champion of a logistic model with intercept -1, whose topic is scored from a time on. A missing input adds nothing.
func (s *stand) promoteWeighted(name string, weights map[string]float64, from time.Time) (digest string) {
	s.t.Helper()
	r := s.registry()
	digest = s.registerWeighted(name, weights, from)
	now, _, _ := r.Alias(name, registry.Champion)
	must(s.t, r.SetAlias(context.Background(), name, registry.Champion, digest, now, ""))
	return digest
}

// registerWeighted is promoteWeighted without making it the champion.
func (s *stand) registerWeighted(name string, weights map[string]float64, from time.Time) (digest string) {
	s.t.Helper()
	var inputs []model.LogisticInput
	var signature []model.SignatureInput
	golden := [][]float64{{}, {}}
	for _, input := range slices.Sorted(maps.Keys(weights)) {
		inputs = append(inputs, model.LogisticInput{Name: input, Weight: weights[input], Scale: 1})
		signature = append(signature, model.SignatureInput{Name: input})
		golden[0], golden[1] = append(golden[0], 100), append(golden[1], math.NaN())
	}
	l, err := model.NewLogistic(-1, inputs)
	must(s.t, err)
	bundle, err := model.NewBundle(signature, l, golden)
	must(s.t, err)
	return s.register(name, bundle, from)
}

// register adds a version.
func (s *stand) register(name string, bundle model.Bundle, from time.Time) (digest string) {
	s.t.Helper()
	content, err := bundle.Encode()
	must(s.t, err)
	r := s.registry()
	digest, err = r.Put(context.Background(), registry.Manifest{
		Kind: registry.KindModel, Name: name, MediaType: model.MediaBundle, Annotations: map[string]string{"data_until": from.Format(time.RFC3339)},
	}, bytes.NewReader(content))
	must(s.t, err)
	_, err = r.AddVersion(name, digest)
	must(s.t, err)
	return digest
}

func (s *stand) registry() *registry.Registry {
	s.t.Helper()
	r, err := registry.Open(filepath.Join(s.data, "registry"))
	must(s.t, err)
	return r
}
