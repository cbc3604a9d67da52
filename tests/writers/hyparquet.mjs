// Writes files with hyparquet-writer: hyparquet.mjs PACKAGES reads a JSON list of jobs from standard input.
// writers.py runs it, and defines the jobs.
import { readFileSync } from 'node:fs'
import { brotliCompressSync, gzipSync } from 'node:zlib'
import { pathToFileURL } from 'node:url'

const packages = process.argv[2]
const { parquetWriteFile } = await import(pathToFileURL(`${packages}/node_modules/hyparquet-writer/src/node.js`))

const compressors = { GZIP: gzipSync, BROTLI: brotliCompressSync }

const leaf = (name, [type, converted_type]) => ({ name, type, converted_type, repetition_type: 'OPTIONAL' })
const TYPES = { string: ['BYTE_ARRAY', 'UTF8'], json: ['BYTE_ARRAY', 'JSON'], bytes: ['BYTE_ARRAY'], bool: ['BOOLEAN'], int: ['INT32'], long: ['INT64'], double: ['DOUBLE'] }

// A column's schema, in Parquet's order.
function elements(column) {
  const { name, type, fields } = column
  if (type === 'struct' || type === 'list') {
    const inner = fields.map(field => leaf(field.name, TYPES[field.type]))
    if (type === 'struct') return [{ name, repetition_type: 'OPTIONAL', num_children: inner.length }, ...inner]
    return [
      { name, repetition_type: 'OPTIONAL', converted_type: 'LIST', num_children: 1 },
      { name: 'list', repetition_type: 'REPEATED', num_children: 1 },
      { name: 'element', repetition_type: 'OPTIONAL', num_children: inner.length },
      ...inner,
    ]
  }
  return [leaf(name, TYPES[type])]
}

const utf8 = new TextEncoder()

// A value as the library expects it: JSON has no bytes and no 64-bit numbers.
function convert(value, type, encoding) {
  if (type === 'long') return BigInt(value)
  return type === 'bytes' || type === 'string' && encoding?.startsWith('DELTA') ? utf8.encode(value) : value
}

for (const { filename, columns, options } of JSON.parse(readFileSync(0, 'utf8'))) {
  const columnData = columns.map(({ name, type, data, encoding, offsetIndex, columnIndex }) => ({
    name,
    data: data.map(value => value === null ? null : convert(value, type, encoding)),
    ...encoding ? { encoding } : {},
    ...offsetIndex === undefined ? {} : { offsetIndex },
    ...columnIndex === undefined ? {} : { columnIndex },
  }))
  const schema = [{ name: 'root', num_children: columns.length }, ...columns.flatMap(elements)]
  try {
    parquetWriteFile({ filename, columnData, schema, compressors, ...options })
  } catch (error) {
    throw new Error(`writing ${filename}`, { cause: error })
  }
}
