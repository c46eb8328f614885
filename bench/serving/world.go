package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/millrace/millrace/features/online"
	"github.com/millrace/millrace/project"
	"github.com/millrace/millrace/registry"
	"github.com/millrace/millrace/registry/model"
	"github.com/millrace/millrace/schemas"
	"github.com/millrace/millrace/training/gbdt"
)

// The size of the benchmark.
const (
	inputs        = 30
	trees         = 200
	depth         = 6
	trainingRows  = 20_000
	entities      = 1000 // of each of the three kinds
	eventsPerDay  = 50   // of an entity, with its newest just now
	distinctAsked = 500  // requests that differ, sent in turn
)

// trainForest fits inputs of noise to a label that depends on them, so that trees are as full as a real model's.
func trainForest(ctx context.Context, names []string, seed uint64) (*model.Forest, error) {
	random := rand.New(rand.NewPCG(seed, 2))
	data := gbdt.Data{Names: names, Columns: make([][]float64, len(names)), Labels: make([]float64, trainingRows)}
	for c := range data.Columns {
		data.Columns[c] = make([]float64, trainingRows)
	}
	for r := range trainingRows {
		signal := 0.0
		for c := range data.Columns {
			x := input(random)
			data.Columns[c][r] = x
			signal += (x - 30) * float64(c%5-2) / 30
		}
		if signal+random.NormFloat64() > 0 {
			data.Labels[r] = 1
		}
	}
	params := gbdt.Default()
	params.Trees, params.MaxDepth, params.Leaves = trees, depth, 1<<depth-1
	return gbdt.Fit(ctx, data, params)
}

// input is a number that is never missing, written with a few digits as amounts and counts are.
func input(random *rand.Rand) float64 { return float64(int(random.ExpFloat64()*3000)) / 100 }

// promote makes a forest the champion of a model.
func promote(ctx context.Context, r *registry.Registry, m *project.Model, forest *model.Forest) error {
	digest, err := register(ctx, r, m, forest)
	if err != nil {
		return err
	}
	return r.SetAlias(ctx, m.Name, registry.Champion, digest, "", "")
}

// register makes a forest a version of a model, and gives its digest. Its golden rows are of the same distribution as its training rows.
func register(ctx context.Context, r *registry.Registry, m *project.Model, forest *model.Forest) (string, error) {
	random := rand.New(rand.NewPCG(3, 4))
	golden := make([][]float64, 50)
	for i := range golden {
		golden[i] = make([]float64, inputs)
		for c := range golden[i] {
			golden[i][c] = input(random)
		}
	}
	signature := make([]model.SignatureInput, len(m.Inputs))
	for i, in := range m.Inputs {
		signature[i].Name = in.Name
	}
	bundle, err := model.NewBundle(signature, forest, golden)
	if err != nil {
		return "", err
	}
	encoded, err := bundle.Encode()
	if err != nil {
		return "", err
	}
	digest, err := r.Put(ctx, registry.Manifest{Kind: registry.KindModel, Name: m.Name, MediaType: model.MediaBundle}, bytes.NewReader(encoded))
	if err != nil {
		return "", err
	}
	if _, err := r.AddVersion(m.Name, digest); err != nil {
		return "", err
	}
	return digest, nil
}

func inputNames(m *project.Model) []string {
	names := make([]string, len(m.Inputs))
	for i, in := range m.Inputs {
		names[i] = in.Name
	}
	return names
}

// seed writes a day of payments of every entity into Redis, by the engine that the stream role runs.
func seed(ctx context.Context, p *project.Project, client redis.UniversalClient) error {
	random := rand.New(rand.NewPCG(5, 6))
	now := time.Now().UnixMilli()
	for _, g := range p.Groups {
		keys, states := map[int32][]string{}, map[int32][][]byte{}
		column := g.Source.Schema.Index(g.Entity[0])
		for i := range entities {
			e := g.NewEntity()
			for n := range int64(eventsPerDay) {
				at := now - (eventsPerDay-n)*24*3600*1000/eventsPerDay
				row := schemas.Row{schemas.StringValue("p"), schemas.TimeValue(at), schemas.StringValue(""), schemas.StringValue(""), schemas.StringValue(""), schemas.FloatValue(input(random))}
				row[column] = schemas.StringValue(entity(i))
				if _, err := g.Add(e, row, at, n); err != nil {
					return err
				}
			}
			k := online.Partition(online.Murmur2, entity(i), p.Partitions)
			keys[k], states[k] = append(keys[k], entity(i)), append(states[k], e.AppendBinary(nil))
		}
		w := online.NewWriter(client, p.Name, g.Name, g.Version)
		for k := range keys {
			if _, err := w.Commit(ctx, k, nil, online.Position{Next: 1, Newest: now}, keys[k], states[k], 0); err != nil {
				return fmt.Errorf("writing states of %s: %w", g.Name, err)
			}
		}
	}
	return nil
}

func entity(i int) string { return fmt.Sprintf("e%04d", i) }

// bodies are the requests of one case, as one server wants them.
type bodies [][]byte

func encode(n int, body func(i int) any) (bodies, error) {
	all := make(bodies, n)
	for i := range all {
		var err error
		if all[i], err = json.Marshal(body(i)); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// rows are what is scored without a fetch; every server gets the same.
func rows() [][]float64 {
	random := rand.New(rand.NewPCG(7, 8))
	all := make([][]float64, distinctAsked)
	for i := range all {
		all[i] = make([]float64, inputs)
		for c := range all[i] {
			all[i][c] = input(random)
		}
	}
	return all
}

const requestTime = "2026-01-01T00:00:00Z"

func scoreBodies(rows [][]float64) (bodies, error) {
	return encode(len(rows), func(i int) any {
		body := map[string]any{"id": fmt.Sprint("r", i), "at": requestTime}
		for c, x := range rows[i] {
			body[fmt.Sprintf("f%02d", c)] = x
		}
		return body
	})
}

// v2Bodies are the same rows in the Open Inference Protocol's JSON, under the name that Millrace has for all of a model's inputs; to
// MLServer a name is as good as another.
func v2Bodies(rows [][]float64) (bodies, error) {
	return encode(len(rows), func(i int) any {
		return map[string]any{"inputs": []any{map[string]any{
			"name": "inputs", "shape": []int{1, inputs}, "datatype": "FP64", "data": rows[i],
		}}}
	})
}

// asked names the three entities of request i.
func asked(i int) (customer, card, merchant string) {
	random := rand.New(rand.NewPCG(9, uint64(i)))
	return entity(random.IntN(entities)), entity(random.IntN(entities)), entity(random.IntN(entities))
}

func fetchBodies() (bodies, error) {
	return encode(distinctAsked, func(i int) any {
		customer, card, merchant := asked(i)
		return map[string]any{"id": fmt.Sprint("p", i), "at": requestTime, "customer": customer, "card": card, "merchant": merchant, "amount": 12.5}
	})
}

func feastBodies() (bodies, error) {
	return encode(distinctAsked, func(i int) any {
		customer, card, merchant := asked(i)
		return map[string]any{"feature_service": "thirty", "full_feature_names": true, "entities": map[string][]string{"customer": {customer}, "card": {card}, "merchant": {merchant}}}
	})
}
