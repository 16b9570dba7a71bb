import { expect, test, vi } from 'vitest'
import { backoff } from '../src/backoff'

const options = { minDelay: 1000, maxDelay: 20_000 }

test('it doubles up to the longest, for ever', () => {
  vi.spyOn(Math, 'random').mockReturnValue(1)
  const delays = [0, 1, 2, 3, 4, 5, 10_000].map((failures) => backoff(failures, options))
  expect(delays).toEqual([1000, 2000, 4000, 8000, 16_000, 20_000, 20_000])
  vi.restoreAllMocks()
})

test('it is spread over half of its length', () => {
  const delays = Array.from({ length: 1000 }, () => backoff(2, options))
  expect(Math.min(...delays)).toBeGreaterThanOrEqual(2000)
  expect(Math.max(...delays)).toBeLessThanOrEqual(4000)
  expect(Math.max(...delays) - Math.min(...delays)).toBeGreaterThan(1000)
})
