from guest_agent.service import main

main()
