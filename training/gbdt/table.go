package gbdt

import "slices"

// A group is up to 8 columns, whose bins of one row share a 64-bit word: one load serves 8 histograms.
const groupColumns = 8

// slots is how many bins a histogram of one column has room for.
const slots = 256

// table is the binned training set: the columns that can be split.
type table struct {
	columns []int  // index in Data.Columns of each used column
	bins    []bins // of each used column
	ways    []int  // of each used column: how it is monotone
	ordered bool   // any is
	allBins int
	ranges  []string // feature_infos of all of Data.Columns
	groups  [][]uint64
	rows    int
}

// encodeRows is how many rows one task bins.
const encodeRows = 1 << 15

func newTable(data *Data, p *Params, pool pool) *table {
	t := &table{rows: len(data.Labels), ranges: make([]string, len(data.Columns))}
	sample := sampleRows(t.rows, p.BinRows, p.Seed)
	all := make([]bins, len(data.Columns))
	pool.each(len(all), func(c int) {
		if data.categorical(c) {
			all[c] = findCategories(data.Columns[c], p.Bins)
		} else {
			all[c] = findBins(data.Columns[c], sample, p.Bins)
		}
		t.ranges[c] = all[c].text()
	})
	for c := range all {
		if all[c].useful() {
			t.columns, t.bins, t.ways = append(t.columns, c), append(t.bins, all[c]), append(t.ways, data.monotone(c))
			t.allBins += all[c].count()
			t.ordered = t.ordered || data.monotone(c) != 0
		}
	}
	for range slices.Chunk(t.columns, groupColumns) {
		t.groups = append(t.groups, make([]uint64, t.rows))
	}
	blocks := (t.rows + encodeRows - 1) / encodeRows
	pool.each(len(t.groups)*blocks, func(task int) {
		from := task % blocks * encodeRows
		t.encode(data, task/blocks, from, min(from+encodeRows, t.rows))
	})
	return t
}

// encode fills the words of one group and a range of rows.
func (t *table) encode(data *Data, group, from, until int) {
	words := t.groups[group][from:until]
	first := group * groupColumns
	for i, c := range t.columns[first:min(first+groupColumns, len(t.columns))] {
		t.bins[first+i].encode(data.Columns[c][from:until], func(row int, bin uint8) {
			words[row] |= uint64(bin) << (8 * i)
		})
	}
}

// word finds a used column's bins.
func (t *table) word(column int) (words []uint64, shift uint) {
	return t.groups[column/groupColumns], 8 * uint(column%groupColumns)
}
