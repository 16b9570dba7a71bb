// The official SDK as a puppet.
import { createClient } from '@insforge/sdk'
import { obey } from './puppet.mjs'

obey(createClient)
