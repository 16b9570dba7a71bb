// Our own SDK as a puppet.
import { createClient } from '../../../clients/js/dist/index.js'
import { obey } from './puppet.mjs'

obey(createClient)
